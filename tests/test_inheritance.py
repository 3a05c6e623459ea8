"""What a session inherits from its role, its database or its server: pinned where our code needs it, else named."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from checkouts import use_checkout
from conftest import ROOT, Command, DatabaseAt, clean_environment, connect, made_database
from documents import block
from ragschema import (
    BulkDocument,
    create_async_engine,
    create_engine,
    embedded,
    hybrid_search,
    jobs,
    migrations,
    publish_many,
)
from ragschema.database import session
from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError
from ragschema.migrations.checks import Check
from ragschema.migrations.health import check_health
from ragschema.models import Document
from ragschema.revisions.manifest import read_manifest

HEAD = read_manifest().head

# roles are the server's, which several processes of a run share
HASTY, REPLICA, READING, ONLY_READS = (
    f"{name}_{os.getpid()}" for name in ("hasty", "replica", "reading", "only_reads")
)

FORMATS = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "extra_float_digits": "-10",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
}


def store(database: Database, settings: Mapping[str, str], role: str | None = None) -> None:
    """Store settings in a database, or in a role."""
    name = database.parameters["dbname"]
    whom = f"DATABASE {name}" if role is None else f"ROLE {role}"
    with connect(database) as connection:
        for setting, value in settings.items():
            connection.execute(f"ALTER {whom} SET {setting} = '{value}'".encode())


@contextmanager
def login(database: Database, name: str, *, is_owner: bool = False) -> Iterator[Database]:
    """Make a role that is no superuser while the block runs, the owner of everything of ours if told so."""
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {name}".encode())
        try:
            if is_owner:
                for (relation,) in connection.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                ).fetchall():
                    connection.execute(f"ALTER TABLE {relation} OWNER TO {name}".encode())
                for (routine,) in connection.execute(
                    "SELECT oid::regprocedure::text FROM pg_proc"
                    " WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'rag%'"
                ).fetchall():
                    connection.execute(f"ALTER ROUTINE {routine} OWNER TO {name}".encode())
            yield Database({**database.parameters, "user": name}, "the tests")
        finally:
            connection.execute(f"REASSIGN OWNED BY {name} TO postgres".encode())
            connection.execute(f"DROP OWNED BY {name} CASCADE".encode())
            connection.execute(f"DROP ROLE {name}".encode())


def health(database: Database, name: str) -> Check:
    return {check.name: check for check in check_health(Options(database))}[name]


def test_every_command_reads_whatever_formats_the_database_sets(database: Database, run: Command) -> None:
    store(database, FORMATS)
    engine = create_engine(database.libpq_url())
    with engine.begin() as service:
        job = jobs.enqueue(service, "embed", {"text": "größer 東京"})
    engine.dispose()
    url = database.libpq_url()
    for command in (
        "migrate",
        "migrate status",
        "migrate history",
        "migrate health",
        "migrate wait --timeout 1s",
        "migrate verify --data",
        "migrate plan",
        "jobs stats",
        "jobs list",
        f"jobs cancel {job}",
    ):
        result = run("rag", *command.split(), DATABASE_URL=url)
        assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    with opened(Options(database)) as at, at.connection as connection:
        for name, value in session.PINNED.items():
            if name != "transaction_timeout" or at.connection.info.server_version >= 170000:
                assert connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == (value,), name


def test_an_upgrade_writes_its_history_whatever_a_string_means(
    database_at: DatabaseAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = database_at(HEAD)
    store(database, FORMATS)
    checkout = use_checkout(tmp_path, monkeypatch)
    revision = checkout.add(r"""op.execute(sa.text(r"SELECT CAST('a\' AS integer)"))""")
    with pytest.raises(Exception, match="failed"):
        migrations.upgrade(database)
    failure = migrations.status(database).last_failure
    assert failure is not None
    assert (failure.revision, failure.succeeded) == (revision, False)
    assert failure.error is not None
    assert '"a\\"' in failure.error
    assert datetime.now(UTC) - failure.started_at < timedelta(minutes=5)


def test_services_read_times_and_texts_whatever_the_database_sets(database: Database) -> None:
    store(database, FORMATS)
    url = database.libpq_url()
    read = sa.select(Document.created_at, sa.func.make_interval(0, 0, 0, 1, 2), Document.article_id)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.insert(Document).values(article_id="größer 東京 \\ 'x'"))
    with engine.connect() as connection:
        rows = [connection.execute(read).one()]
    engine.dispose()

    async def read_async() -> None:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            rows.append((await connection.execute(read)).one())
        await engine.dispose()

    asyncio.run(read_async())
    assert rows[0] == rows[1]
    created_at, interval, article_id = rows[0]
    assert isinstance(created_at, datetime)
    assert (interval, article_id) == (timedelta(days=1, hours=2), "größer 東京 \\ 'x'")


def test_an_engine_sets_nothing_where_nothing_is_odd(database: Database) -> None:
    engine = create_engine(database.libpq_url())
    with engine.connect() as connection:
        stored = "SELECT name FROM pg_settings WHERE source = 'session'"
        assert {*connection.exec_driver_sql(stored).scalars()} <= {"client_encoding"}
    engine.dispose()


TIMEOUTS = {
    "statement_timeout": "400ms",
    "transaction_timeout": "400ms",
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "400ms",
    "lock_timeout": "1ms",
}
SLOW = "connection.exec_driver_sql('SELECT pg_sleep(0.5)')"
SLOW_CHECKS = f"""
import time

def precheck(connection):
    {SLOW}
    time.sleep(0.3)
    return []

def verify(connection):
    {SLOW}
    return []
"""


def test_a_role_s_timeouts_end_neither_a_check_nor_a_revision_nor_a_backfill(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with login(database, HASTY, is_owner=True) as hasty:
        store(database, TIMEOUTS, HASTY)
        checkout = use_checkout(tmp_path, monkeypatch)
        checkout.add(
            "from ragschema.operations_v1 import backfill\n"
            "op.execute('SELECT pg_sleep(0.5)')\n"
            "backfill('rag_jobs', 'priority = 1 FROM pg_sleep(0.5)', 'priority = 0')",
            checks=SLOW_CHECKS,
        )
        with connect(database) as connection:
            connection.execute("SELECT rag_jobs_enqueue('embed', '{}')")
        assert migrations.upgrade(hasty).current == checkout.head
        assert migrations.verify_data(hasty) == []


def test_timeouts_that_end_every_session_at_once_end_none_of_ours(
    database_at: DatabaseAt, run: Command
) -> None:
    """All together, of the role, and then of the database too: sessions begin again with ours among their options."""
    timeouts = dict.fromkeys(
        (
            "idle_session_timeout",
            "idle_in_transaction_session_timeout",
            "transaction_timeout",
            "statement_timeout",
        ),
        "1ms",
    )
    database = database_at(read_manifest().revisions[-2].revision)
    role = f"instant_{os.getpid()}"
    with login(database, role, is_owner=True) as instant:
        url = instant.libpq_url() + "&options=-c%20search_path%3Dpublic"
        for name, value in timeouts.items():  # each alone ends a look that does not lift it
            store(database, {name: value}, role)
            result = run("rag", "migrate", "status", "--json", DATABASE_URL=url)
            assert result.returncode == 0, (name, result.stderr)
            store(database, {name: "0"}, role)
        store(database, timeouts, role)
        for command in ("plan", "", "status", "verify --data", "wait --timeout 60s", "health", "history"):
            result = run("rag", "migrate", *command.split(), DATABASE_URL=url)
            assert result.returncode == 0, (command, result.stderr)
        store(database, timeouts)
        assert migrations.upgrade(instant).current == HEAD
        assert run("rag", "jobs", "list", DATABASE_URL=url).returncode == 0


@pytest.mark.parametrize("place", ["role", "database", "role in database", "url"])
def test_an_engine_names_the_timeout_that_ends_its_sessions_at_once(database: Database, place: str) -> None:
    """A service keeps its own timeouts: nothing lifts them."""
    role, name = f"instant_{os.getpid()}", database.parameters["dbname"]
    alter = {
        "role": f"ALTER ROLE {role}",
        "database": f"ALTER DATABASE {name}",
        "role in database": f"ALTER ROLE {role} IN DATABASE {name}",
    }.get(place)
    with login(database, role) as instant:
        options = {}
        if alter is None:
            options["options"] = "-c idle_session_timeout=1"
        else:
            with connect(database) as connection:
                connection.execute(f"{alter} SET idle_session_timeout = 1".encode())
        engine = create_engine(Database({**instant.parameters, **options}, "the tests").libpq_url())
        sa.event.listen(engine, "connect", lambda *_: time.sleep(0.05), insert=True)
        with pytest.raises(ConfigurationError, match="idle_session_timeout") as caught:
            engine.connect()
        said = str(caught.value).replace('"', "")
        if alter is None:
            assert "the connection's own options" in said
        else:
            assert f"from {alter} SET idle_session_timeout" in said
            assert f"{alter} RESET idle_session_timeout;" in said


def test_what_the_role_may_not_set_is_named_with_where_it_comes_from(
    database_at: DatabaseAt, run: Command
) -> None:
    database = database_at("20261121150000")
    with login(database, REPLICA, is_owner=True) as replica:
        store(database, {"session_replication_role": "replica"}, REPLICA)
        for command in (("rag", "migrate"), ("alembic", "upgrade", "head")):
            result = run(*command, cwd=ROOT, DATABASE_URL=replica.libpq_url())
            said = (result.stdout + result.stderr).replace('"', "")
            assert result.returncode in (78, 255)
            assert (
                f"session_replication_role is replica, from ALTER ROLE {REPLICA} SET session_replication_role"
                in said
            )
            assert f"Run `ALTER ROLE {REPLICA} RESET session_replication_role;`" in said
        found = health(replica, "writing")
        assert (found.verdict, "fires no trigger" in found.finding) == ("refused", True)
        assert migrations.status(replica).state == "PENDING"
        with pytest.raises(
            ConfigurationError, match="refuses to set maintenance_work_mem to 1 parsec"
        ) as caught:
            migrations.upgrade(Options(replica, maintenance_work_mem="1 parsec"))
        assert "maintenance_work_mem is " in caught.value.evidence


@pytest.mark.parametrize("place", ["role", "database", "role in database", "url"])
def test_a_read_only_session_is_said_to_be_one_and_why(
    database_at: DatabaseAt, run: Command, place: str
) -> None:
    database = database_at("20261121150000")
    name = database.parameters["dbname"]
    store_in = {
        "role": f"ALTER ROLE {READING} SET",
        "database": f"ALTER DATABASE {name} SET",
        "role in database": f"ALTER ROLE {READING} IN DATABASE {name} SET",
    }
    with login(database, READING, is_owner=True) as reading:
        if place in store_in:
            with connect(database) as connection:
                connection.execute(f"{store_in[place]} default_transaction_read_only = on".encode())
            source = f"{store_in[place]} default_transaction_read_only."
        else:
            options = "-cdefault_transaction_read_only=on"
            reading = Database({**reading.parameters, "options": options}, "the tests")
            source = "the connection's own options (the URL or PGOPTIONS)."
        url = reading.libpq_url()
        for command in (("rag", "migrate"), ("alembic", "upgrade", "head"), ("rag", "migrate", "init")):
            result = run(*command, cwd=ROOT, DATABASE_URL=url)
            said = (result.stdout + result.stderr).replace('"', "")
            assert result.returncode in (78, 255), said
            assert f"read-only: default_transaction_read_only is on, from {source}" in said
            assert "25006" not in said
            assert ("RESET default_transaction_read_only;`" in said) == (place != "url")
        assert health(reading, "writing").verdict == "refused"
        if place in ("role", "url"):  # what sets it is nothing to who only looks
            looks_work(reading, run)


def looks_work(database: Database, run: Command) -> None:
    """What only looks goes on working, before head."""
    url = database.libpq_url()
    for command, code in (
        ("status", 0),
        ("verify", 0),
        ("history", 0),
        ("plan", 0),
        ("wait --timeout 2s", 3),
        ("health", 78),
    ):
        result = run("rag", "migrate", *command.split(), DATABASE_URL=url)
        assert result.returncode == code, (command, result.stderr)


def test_at_head_a_read_only_session_has_nothing_to_do(database: Database, run: Command) -> None:
    store(database, {"default_transaction_read_only": "on"})
    for command in (("rag", "migrate"), ("alembic", "upgrade", "head"), ("rag", "migrate", "wait")):
        result = run(*command, cwd=ROOT, DATABASE_URL=database.libpq_url())
        assert result.returncode == 0, result.stderr


@contextmanager
def encoded(server: Mapping[str, str], options: str) -> Iterator[Database]:
    with made_database(server) as made:
        name = made.parameters["dbname"]
        with connect(Database(server, "the tests")) as connection:
            connection.execute(f"DROP DATABASE {name}".encode())
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}".encode())
        yield made


def test_a_database_of_sql_ascii_is_refused(server: Mapping[str, str], run: Command) -> None:
    with encoded(server, "ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'") as database:
        found = health(database, "writing")
        assert found.verdict == "refused"
        assert "encoding is SQL_ASCII" in found.finding
        for command in (("rag", "migrate"), ("alembic", "upgrade", "head")):
            result = run(*command, cwd=ROOT, DATABASE_URL=database.libpq_url())
            assert result.returncode in (78, 255)
            assert "The database's encoding is SQL_ASCII" in result.stdout + result.stderr
            assert "CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8'" in result.stdout + result.stderr
        with connect(database) as connection:
            assert connection.execute("SELECT to_regclass('rag_documents')").fetchone() == (None,)


WORDS = "SELECT to_tsvector('simple', 'Äpfel\N{EN DASH}Birnen “Straße” 東京、大阪 naïve…end')"
CUT = {"äpfel", "birnen", "straße", "東京", "大阪", "naïve", "end"}


def lexemes(database: Database) -> set[str]:
    with connect(database) as connection:
        rows = connection.execute(f"SELECT unnest(tsvector_to_array(({WORDS})))".encode()).fetchall()
    return {word for (word,) in rows}


def test_the_embedded_server_knows_letters_and_health_warns_where_a_database_does_not(
    server: Mapping[str, str], database: Database
) -> None:
    assert lexemes(database) == CUT
    assert health(database, "words") == Check("words", "ok", "encoding UTF8, LC_CTYPE C.UTF-8")
    options = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'"
    with encoded(server, options) as blind:
        assert lexemes(blind) != CUT
        found = health(blind, "words")
    assert found.verdict == "warning"
    assert "LC_CTYPE C: every character beyond ASCII is taken for a letter" in found.finding
    assert "LC_CTYPE 'C.UTF-8'" in found.remedy
    with encoded(server, "ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'") as narrow:
        assert "not every character of a text can be stored" in health(narrow, "words").finding


def test_the_page_moves_a_database_to_letters(server: Mapping[str, str]) -> None:
    """The commands of docs/search.md, as they stand but for the new database's name."""
    commands = block((ROOT / "docs" / "search.md").read_text(), "sh")
    options = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'"
    with encoded(server, options) as blind, made_database(server) as moved:
        name = moved.parameters["dbname"]
        with connect(Database(server, "the tests")) as connection:
            connection.execute(f"DROP DATABASE {name}".encode())
        migrations.upgrade(blind)
        publish(blind, "Straße\N{EN DASH}Brücke")
        subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", re.sub(r"\bmoved\b", name, commands)],
            env=clean_environment()
            | {
                "DATABASE_URL": blind.libpq_url(),
                "MOVED_URL": moved.libpq_url(),
                "PATH": f"{embedded.program('psql').parent}:{os.environ['PATH']}",
            },
            check=True,
            capture_output=True,
        )
        assert (found(blind, "Brücke"), found(moved, "Brücke")) == (
            1,
            1,
        )  # search by words needs no letters of the database's
        assert migrations.verify(moved).is_clean
        assert health(moved, "words").verdict == "ok"


def publish(database: Database, text: str) -> None:
    engine = create_engine(database.libpq_url())
    with engine.connect() as connection:
        publish_many(connection, [BulkDocument("a", [text], None, "1", "by-hand", "none")])
    engine.dispose()


def found(database: Database, word: str) -> int:
    engine = create_engine(database.libpq_url())
    with engine.connect() as connection:
        hits = connection.execute(hybrid_search(None, word)).all()
    engine.dispose()
    return len(hits)


def test_pgvector_off_the_path_migrates_verifies_and_is_named_by_health(
    empty_database: Database, run: Command
) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    url = empty_database.libpq_url()
    assert run("rag", "migrate", DATABASE_URL=url).returncode == 0
    verified = run("rag", "migrate", "verify", DATABASE_URL=url)
    assert verified.returncode == 0, verified.stdout
    assert "note: extension vector" in verified.stdout
    found = health(empty_database, "pgvector")
    assert found.verdict == "warning"
    assert "in schema extensions, which is not on this role's search_path" in found.finding
    assert "SET search_path = " in found.remedy
    assert health(empty_database, "drift").verdict == "ok"
    on_path = {**empty_database.parameters, "options": "-csearch_path=public,extensions"}
    assert health(Database(on_path, "the tests"), "pgvector").verdict == "ok"


def test_a_role_that_may_only_read_our_tables_looks_at_them(database: Database, run: Command) -> None:
    with login(database, ONLY_READS) as reader:
        with connect(database) as connection:
            connection.execute(f"REVOKE CREATE ON SCHEMA public FROM {ONLY_READS}".encode())
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ONLY_READS}".encode())
        for command in ("status", "wait --timeout 1s", "verify", "verify --data", "history", "plan"):
            result = run("rag", "migrate", *command.split(), DATABASE_URL=reader.libpq_url())
            assert result.returncode == 0, result.stderr
        engine = create_engine(reader.libpq_url())
        with engine.connect() as connection_:
            assert migrations.assert_current(connection_) == HEAD
        engine.dispose()
