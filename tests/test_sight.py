"""Row security: what counts, checks, fills in or judges rows sees all of them, or fails before anything changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from checkouts import use_checkout
from conftest import ROOT, Command, connect
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.row_security import HiddenTable, rows_hidden
from ragschema.database.settings import Database
from ragschema.errors import RowsHidden
from ragschema.migrations.health import check_health
from ragschema.migrations.inspection import assert_current
from ragschema.revisions.manifest import read_manifest

# roles are the server's, which several processes of a run share
OWNER, OTHER, SERVICE = (f"sight_{name}_{os.getpid()}" for name in ("owner", "other", "service"))
BEFORE_THE_BACKFILL = "20261121121300"
DOCUMENTS = "INSERT INTO rag_documents (article_id) VALUES ('a'), ('b')"


@contextmanager
def role(database: Database, name: str, grants: str = "") -> Iterator[Database]:
    """Make a role while the block runs; yield the database as that role."""
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        if grants:
            connection.execute(grants.encode())
        try:
            yield Database({**database.parameters, "user": name}, "the tests")
        finally:
            connection.execute(f"DROP OWNED BY {name} CASCADE")
            connection.execute(f"DROP ROLE {name}")


@pytest.fixture
def owned(empty_database: Database) -> Iterator[Callable[[str], Database]]:
    """Makes a database at a revision, owned by a role that is no superuser; returns it as that role."""
    grants = f"GRANT ALL ON SCHEMA public TO {OWNER}; CREATE EXTENSION vector"
    with role(empty_database, OWNER, grants) as as_owner:

        def make(revision: str) -> Database:
            migrations.upgrade(as_owner, revision)
            with connect(as_owner) as connection:
                connection.execute(DOCUMENTS)
            return as_owner

        yield make


def force(database: Database, table: str = "rag_documents") -> None:
    with connect(database) as connection:
        connection.execute(
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY".encode()
        )
        connection.execute(f"CREATE POLICY only_mine ON {table} USING (false)".encode())


COMMANDS = (
    ("rag", "migrate", "rollback", "base", "--yes"),
    ("rag", "migrate", "rollback", "base", "--yes", "--allow-data-loss"),
    ("rag", "migrate"),
    ("rag", "migrate", "plan"),
    ("alembic", "upgrade", "head"),
    ("alembic", "downgrade", "base"),
)


def test_an_owner_whose_rows_are_hidden_is_refused_before_anything_changes(
    owned: Callable[[str], Database], empty_database: Database, run: Command
) -> None:
    as_owner = owned(BEFORE_THE_BACKFILL)
    force(as_owner)
    for command in COMMANDS:
        refused = run(*command, cwd=ROOT, DATABASE_URL=as_owner.libpq_url())
        assert refused.returncode == (255 if command[0] == "alembic" else 78), refused.stderr
        said = (refused.stdout + refused.stderr).replace('"', "")
        assert f"Row security hides rows of rag_documents from the role {OWNER} (policy only_mine)." in said
        assert "Run `ALTER TABLE public.rag_documents NO FORCE ROW LEVEL SECURITY;`" in said
        assert f"ALTER ROLE {OWNER} BYPASSRLS;" in said
        with connect(empty_database) as connection:
            assert connection.execute("SELECT count(*) FROM rag_documents").fetchone() == (2,)
        assert migrations.status(empty_database).current == BEFORE_THE_BACKFILL


WRITES = {
    "rag_jobs": ("jobs", "prune", "--older-than", "1d", "--yes"),
    "rag_documents": ("documents", "delete", "a"),
    "rag_collections": ("collections", "create", "laws", "--description", "All laws"),
    "rag_chat_sessions": ("chat", "prune", "--before", "1d", "--yes"),
}


def test_what_writes_rows_names_who_refuses_it(owned: Callable[[str], Database], run: Command) -> None:
    as_owner = owned(read_manifest().head)
    with connect(as_owner) as connection:
        connection.execute("INSERT INTO rag_chat_sessions (updated_at) VALUES ('2000-01-01')")
    for table, words in WRITES.items():
        force(as_owner, table)
        refused = run("rag", *words, DATABASE_URL=as_owner.libpq_url())
        assert refused.returncode == 78, refused.stderr
        assert (
            f"Row security hides rows of {table} from the role {OWNER} (policy only_mine)." in refused.stderr
        )
        assert f"ALTER TABLE public.{table} NO FORCE ROW LEVEL SECURITY;" in refused.stderr.replace('"', "")
        with connect(as_owner) as connection:
            connection.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY".encode())
            connection.execute(f"ALTER ROLE {OWNER} SET default_transaction_read_only = on".encode())
        refused = run("rag", *words, DATABASE_URL=as_owner.libpq_url())
        said = refused.stderr.replace('"', "")
        assert refused.returncode == 78, said
        assert f"default_transaction_read_only is on, from ALTER ROLE {OWNER} SET" in said
        assert f"Run `ALTER ROLE {OWNER} RESET default_transaction_read_only;`, or use another role." in said
        with connect(as_owner) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER ROLE {OWNER} RESET default_transaction_read_only".encode())


def test_with_the_way_out_taken_the_upgrade_sees_every_row(owned: Callable[[str], Database]) -> None:
    as_owner = owned(BEFORE_THE_BACKFILL)
    force(as_owner)
    with pytest.raises(RowsHidden):
        migrations.upgrade(as_owner)
    with connect(as_owner) as connection:
        connection.execute("ALTER TABLE rag_documents NO FORCE ROW LEVEL SECURITY")
    assert migrations.upgrade(as_owner).applied
    assert migrations.verify(as_owner).is_clean
    assert {note.object for note in migrations.verify(as_owner).notes} == {
        "policy rag_documents.only_mine",
        "row-security rag_documents",
    }


def test_the_rows_are_not_judged_while_some_are_hidden(
    owned: Callable[[str], Database], run: Command
) -> None:
    as_owner = owned("head")
    force(as_owner, "rag_chunks")
    with pytest.raises(RowsHidden, match=f"rows of rag_chunks from the role {OWNER}"):
        migrations.verify_data(as_owner)
    result = run("rag", "migrate", "verify", "--data", DATABASE_URL=as_owner.libpq_url())
    assert (result.returncode, "all is well" in result.stdout) == (78, False)


def test_a_policy_on_the_table_of_another_role_is_refused_and_names_the_owner(
    owned: Callable[[str], Database], empty_database: Database
) -> None:
    as_owner = owned("head")
    with connect(as_owner) as connection:
        connection.execute("ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY")
    grants = (
        f"GRANT USAGE, CREATE ON SCHEMA public TO {OTHER};GRANT ALL ON ALL TABLES IN SCHEMA public TO {OTHER}"
    )
    with role(empty_database, OTHER, grants) as as_other:
        for act in (migrations.verify_data, lambda database: migrations.downgrade(database, "-1")):
            with pytest.raises(
                RowsHidden, match=rf"from the role {OTHER} \(no policy shows it any\)"
            ) as caught:
                act(as_other)
            assert f"Run it as {OWNER}, the owner" in caught.value.remedy
        drift = migrations.verify(as_other)
        assert [difference.object for difference in drift.differences] == ["row-security rag_chunks"]
    assert migrations.verify(as_owner).is_clean
    assert migrations.verify_data(as_owner) == []


def test_a_revision_of_ones_own_that_fills_in_a_hidden_table_fails_and_says_why(
    owned: Callable[[str], Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_owner = owned("head")
    with connect(as_owner) as connection:
        connection.execute(
            "CREATE TABLE mine (id integer PRIMARY KEY, done boolean); INSERT INTO mine VALUES (1)"
        )
        connection.execute("ALTER TABLE mine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    checkout = use_checkout(tmp_path, monkeypatch)
    checkout.add(
        "from ragschema.operations_v1 import backfill\nbackfill('mine', 'done = true', 'done IS NULL')"
    )
    with pytest.raises(RowsHidden, match=f"rows of mine from the role {OWNER}") as caught:
        migrations.upgrade(as_owner)
    assert "NO FORCE ROW LEVEL SECURITY" in caught.value.remedy


VERSION_ONLY = "ALTER TABLE rag_alembic_version ENABLE ROW LEVEL SECURITY"
MAY_READ = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {SERVICE}"


@pytest.fixture
def service(database: Database) -> Iterator[Database]:
    """A database at head as a service's role, which row security shows no row of the version table."""
    with role(database, SERVICE, MAY_READ) as as_service:
        with connect(database) as connection:
            connection.execute(VERSION_ONLY)
        yield as_service


def test_a_hidden_revision_is_said_to_be_hidden_and_from_whom(service: Database, run: Command) -> None:
    for arguments in (("status",), ("wait", "--timeout", "30s"), ("verify",), ("history",), ()):
        result = run("rag", "migrate", *arguments, DATABASE_URL=service.libpq_url())
        assert (result.returncode, result.stdout) == (78, "")
        said = result.stderr.replace('"', "")
        assert f"Row security hides rows of rag_alembic_version from the role {SERVICE}" in said
        assert "Run it as postgres, the owner" in said
        assert not any(wrong in said for wrong in ("adopt", "EMPTY", "UNMANAGED", "GRANT"))


def test_a_service_is_told_that_its_revision_is_hidden(service: Database, database: Database) -> None:
    engine = sa.create_engine(service.url())
    with engine.connect() as connection:
        with pytest.raises(RowsHidden, match=f"rag_alembic_version from the role {SERVICE}"):
            assert_current(connection)
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        connection.exec_driver_sql("SET LOCAL row_security = off")
        with pytest.raises(RowsHidden, match="rag_alembic_version from this role"):
            assert_current(connection)
    with connect(database) as connection:
        connection.execute("CREATE POLICY everybody ON rag_alembic_version FOR SELECT USING (true)")
    with engine.connect() as shown:
        assert assert_current(shown) == migrations.status(service).head
    engine.dispose()


def test_health_has_a_line_for_row_security(service: Database, database: Database) -> None:
    lines = {check.name: check for check in check_health(Options(service))}
    assert lines["row security"].verdict == "refused"
    assert f"rag_alembic_version (of postgres): hidden from {SERVICE}" in lines["row security"].finding
    assert lines["revision"].verdict == "refused"
    assert "Row security hides rows of rag_alembic_version" in lines["revision"].finding
    assert {check.name: check.verdict for check in check_health(Options(database))}["row security"] == "ok"


def test_a_policy_that_shows_the_revision_is_enough_to_look(service: Database, database: Database) -> None:
    with connect(database) as connection:
        connection.execute("CREATE POLICY everybody ON rag_alembic_version FOR SELECT USING (true)")
    assert migrations.status(service).state == "OK"
    assert migrations.wait(service, timeout=60).state == "OK"
    assert migrations.verify(service).is_clean
    with connect(service) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SET row_security = off; SELECT * FROM rag_alembic_version")


def test_the_error_counts_tables_and_names_each() -> None:
    hidden = [HiddenTable("s", name, "o", "r", True, ["p", "q"]) for name in ("rag_a", "rag_b")]
    error = rows_hidden(hidden)
    assert (
        error.message == "Row security hides rows of rag_a and 1 more table from the role r (policies p, q)."
    )
    assert error.evidence.splitlines() == [
        f"{name} (of o, row security forced): hidden from r, policies p, q" for name in ("rag_a", "rag_b")
    ]
