"""Connections that do not come about: each refusal with its cause and remedy, and what is waited for."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkouts import made_role, wait_until
from conftest import Command, connect, passable_directory
from proxies import proxied, silent_listener
from ragschema import embedded, migrations
from ragschema.database import connecting
from ragschema.database.options import Options
from ragschema.database.secrets import without_secrets
from ragschema.database.settings import Database, find_database
from ragschema.errors import ConfigurationError, DatabaseMissing, DatabaseUnreachable, RagSchemaError
from ragschema.migrations.health import check_health
from ragschema.migrations.preparation import prepare_database

PASSWORD = "p"  # as short as can be: masking it wherever it occurs would spoil every message
LONG = 600.0  # seconds, which a test of what is not waited for never spends


@pytest.fixture(scope="module")
def asking() -> Iterator[Database]:
    """The database of a role with a password, on a server that asks for it."""
    with (
        passable_directory() as directory,
        embedded.running(directory / "postgres") as parameters,
    ):
        administrator = Database(parameters, "the tests")
        access = directory / "postgres" / "pg_hba.conf"
        access.write_text(
            "local all postgres trust\nlocal all rejected reject\nlocal all peered peer\n"
            "local closed_to_all all reject\nlocal all all scram-sha-256\n"
        )
        with connect(administrator) as connection:
            connection.execute("SELECT pg_reload_conf()")
            for statement in (
                f"CREATE ROLE asked LOGIN PASSWORD '{PASSWORD}'",
                f"CREATE ROLE barred NOLOGIN PASSWORD '{PASSWORD}'",
                "CREATE ROLE rejected LOGIN",
                "CREATE ROLE peered LOGIN",
                "CREATE DATABASE private",
                "REVOKE CONNECT ON DATABASE private FROM public",
                "CREATE DATABASE frozen ALLOW_CONNECTIONS false",
            ):
                connection.execute(statement.encode())
        yield Database({**parameters, "user": "asked", "password": PASSWORD}, "DATABASE_URL")


def changed(database: Database, **parameters: str) -> Database:
    found = {**database.parameters, **parameters}
    return Database({name: value for name, value in found.items() if value}, database.source)


REFUSALS = {
    "wrong password": ({"password": "q"}, "does not accept the user or the password", "in DATABASE_URL"),
    "no password": ({"password": ""}, "asks for a password, and none is set", "PGPASSWORD"),
    "no such user": ({"user": "nobody"}, "does not accept the user or the password", "in DATABASE_URL"),
    "a peer who is another": (
        {"user": "peered", "password": ""},
        "does not accept the user",
        "in DATABASE_URL",
    ),
    "a role that may not log in": ({"user": "barred"}, "does not let this user into", "CREATE ROLE"),
    "no entry in pg_hba.conf": (
        {"user": "rejected"},
        "pg_hba.conf does not let",
        "adds a line to pg_hba.conf",
    ),
    "no such database": ({"dbname": "none"}, "There is no database none", "`rag migrate init --create-db`"),
    "no right to connect": ({"dbname": "private"}, "does not let this user into", "GRANT CONNECT"),
    "a database that takes nobody": ({"dbname": "frozen"}, "does not let this user into", "in DATABASE_URL"),
    "an unknown setting": ({"options": "-c no.such=1 -c nosuch=1"}, "is not accepted", "named below"),
    "a wrong setting": ({"options": "-c work_mem=much"}, "is not accepted", "named below"),
    "a wrong encoding": ({"options": "-x"}, "is not accepted", "named below"),
    "an unknown service": ({"service": "none"}, "is not accepted", "named below"),
    "a wrong word": ({"target_session_attrs": "any-one"}, "is not accepted", "named below"),
    "a socket's path that is too long": ({"host": "/" + "a" * 200}, "is not accepted", "named below"),
    "a label of 64 characters": ({"host": "a" * 64 + ".example"}, "is not accepted", "named below"),
    "an empty label": ({"host": "a..b"}, "is not accepted", "named below"),
    "channel binding": ({"channel_binding": "require"}, "cannot be encrypted", "sslmode"),
}


@pytest.mark.parametrize(("parameters", "fact", "remedy"), REFUSALS.values(), ids=REFUSALS)
def test_what_no_waiting_heals_is_refused_at_once_with_its_remedy(
    asking: Database, parameters: dict[str, str], fact: str, remedy: str
) -> None:
    database = changed(asking, **parameters)
    asked: tuple[Callable[[], object], ...] = (
        lambda: migrations.wait(database, timeout=LONG),
        lambda: migrations.upgrade(Options(database, wait=LONG)),
        lambda: check_health(Options(database, wait=LONG)),
    )
    for ask in asked:
        with pytest.raises(ConfigurationError) as refused:
            ask()
        assert refused.value.exit_code == 78
        assert fact in refused.value.message
        assert remedy in refused.value.remedy
        assert refused.value.evidence
        assert "***" not in str(refused.value)  # nothing here had a password in it


def test_encryption_that_the_server_does_not_have_is_refused_at_once(asking: Database) -> None:
    with proxied(asking) as proxy:  # a Unix socket carries none, whatever is asked
        assert migrations.status(proxy.database).state == "EMPTY"
        for mode in ("require", "verify-full"):
            with pytest.raises(ConfigurationError) as refused:
                migrations.wait(changed(proxy.database, sslmode=mode), timeout=LONG)
            assert f"cannot be encrypted as it is asked to be (sslmode={mode})" in refused.value.message
            assert "sslrootcert" in refused.value.remedy


def test_the_commands_exit_78_and_name_the_setting(run: Command, asking: Database) -> None:
    for parameters, said in (
        ({"password": "q"}, "does not accept the user or the password"),
        ({"dbname": "none"}, "There is no database none"),
        ({"host": "a" * 64}, "is not accepted"),
    ):
        url = changed(asking, **parameters).libpq_url()
        for command in (
            ("migrate", "--wait", "10m"),
            ("migrate", "wait", "--timeout", "10m"),
            ("migrate", "status"),
            ("jobs", "stats"),
        ):
            result = run("rag", *command, DATABASE_URL=url)
            assert result.returncode == 78, (command, result.stderr)
            assert said in result.stderr
            assert "from DATABASE_URL" in result.stderr or "in DATABASE_URL" in result.stderr
            assert "Traceback" not in result.stderr


def test_create_db_makes_the_database_that_is_missing(run: Command, asking: Database) -> None:
    with connect(changed(asking, user="postgres", password="")) as administrator:
        administrator.execute("ALTER ROLE asked SUPERUSER")
    database = changed(asking, dbname="made")
    with pytest.raises(DatabaseMissing):
        migrations.status(database)
    assert prepare_database(Options(database), with_database=True).database
    assert migrations.status(database).state == "EMPTY"
    with pytest.raises(ConfigurationError, match="does not accept the user or the password"):
        prepare_database(Options(changed(database, password="q", dbname="another")), with_database=True)


def test_a_role_without_a_connection_free_is_waited_for(empty_database: Database) -> None:
    with made_role(empty_database, attributes="CONNECTION LIMIT 0") as limited:
        with pytest.raises(DatabaseUnreachable, match="has no connection free") as refused:
            migrations.status(limited)
        assert "CONNECTION LIMIT" in refused.value.remedy
        with ThreadPoolExecutor(1) as pool, connect(empty_database) as administrator:
            waiting = pool.submit(migrations.status, Options(limited, wait=LONG))
            administrator.execute(f"ALTER ROLE {limited.parameters['user']} CONNECTION LIMIT -1".encode())
            assert waiting.result().state == "EMPTY"


def test_a_server_that_stops_is_said_to_stop_and_is_waited_for(tmp_path: Path) -> None:
    with (
        passable_directory() as directory,
        embedded.running(directory / "postgres") as parameters,
    ):
        database = Database(parameters, "the tests")
        postmaster = int((directory / "postgres" / "postmaster.pid").read_text().split()[0])
        with connect(database):  # a smart shutdown waits for it
            subprocess.run(["kill", "-TERM", str(postmaster)], check=True)

            def is_stopping() -> bool:
                try:
                    migrations.status(database)
                except DatabaseUnreachable:
                    return True
                return False

            wait_until(is_stopping, "the server to stop taking connections")
            with pytest.raises(DatabaseUnreachable, match="is starting, stopping or recovering"):
                migrations.status(Options(database, wait=0.2))


# what never answers


def test_a_listener_that_never_answers_ends_a_wait(run: Command) -> None:
    with silent_listener() as database:
        url = database.libpq_url()
        waited = run("rag", "migrate", "wait", "--timeout", "1s", DATABASE_URL=url)
        assert (waited.returncode, "cannot be reached" in waited.stderr) == (69, True)
        tried = run("rag", "migrate", "--wait", "1s", DATABASE_URL=url + "?connect_timeout=600")
        assert (tried.returncode, "cannot be reached after 1 s" in tried.stderr) == (69, True)


def test_a_listener_that_never_answers_ends_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "_CONNECT_TIMEOUT", 2)
    with silent_listener() as database, pytest.raises(DatabaseUnreachable, match="cannot be reached"):
        migrations.status(database)


@pytest.mark.parametrize("says", [3, 1000])
def test_a_setting_says_how_long_one_attempt_may_take(monkeypatch: pytest.MonkeyPatch, says: int) -> None:
    def asked(parameters: dict[str, str], left: float | None = None) -> object:
        end = None if left is None else time.monotonic() + left
        return connecting._with_defaults(parameters, end).get("connect_timeout")

    assert asked({}) == "10"
    assert asked({}, 4.5) == "5"
    assert asked({"host": "a,b"}, 8) == "4"
    assert asked({}, -1) == "2"  # psycopg takes no less
    assert asked({"connect_timeout": str(says)}) == str(says)
    assert asked({"connect_timeout": str(says)}, 3) == "3"
    assert asked({"connect_timeout": "0"}, 3) == "3"  # for ever, that is
    assert asked({"service": "ours"}) is None  # what its file says, we do not see
    assert asked({"service": "ours"}, 3) == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", str(says))
    assert asked({}) == str(says)


def test_a_server_that_freezes_after_the_login_ends_a_wait(empty_database: Database) -> None:
    """As a frozen machine does, or a pooler that has lost its server."""
    with proxied(empty_database) as proxy:
        frozen = threading.Event()

        def freeze(data: bytes) -> bool:
            if b"pg_backend_pid" in data:  # our first question
                frozen.wait()
            return True

        proxy._passes = freeze  # type: ignore[method-assign]
        try:
            with pytest.raises(DatabaseUnreachable, match="was reached, and did not answer in time"):
                migrations.wait(proxy.database, timeout=1)
        finally:
            frozen.set()


def test_a_wait_may_be_as_long_as_one_likes(database: Database) -> None:
    assert migrations.wait(database, timeout=1e15).state == "OK"
    assert migrations.status(Options(database, wait=1e15)).state == "OK"


def test_a_vanished_peer_is_missed_within_a_minute(database: Database) -> None:
    with proxied(database) as proxy:
        with connecting.connect(Options(proxy.database), proxy.database) as connection:
            told = connection.info.get_parameters()
        assert (told["keepalives_idle"], told["keepalives_interval"], told["keepalives_count"]) == (
            "30",
            "10",
            "3",
        )
        said = changed(proxy.database, keepalives_idle="7")
        with connecting.connect(Options(said), said) as connection:
            assert connection.info.get_parameters()["keepalives_idle"] == "7"


# passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("port 5432 failed", "port 5432 failed"),
        ("postgresql://u:p@host:5432/d", "postgresql://u:***@host:5432/d"),
        ("see 'postgres://u:p@ss@h/d'.", "see 'postgres://u:***@h/d'."),
        ("postgresql://:p@h", "postgresql://:***@h"),
        ("postgresql://u@h:5432/d and a@b", "postgresql://u@h:5432/d and a@b"),
        ("host=h password=p port=5432", "host=h password=*** port=5432"),
        ("host=h password = 'p \\' q' port=5432", "host=h password = *** port=5432"),
        ("?user=u&password=p&sslmode=require", "?user=u&password=***&sslmode=require"),
        ("PGPASSWORD is not set", "PGPASSWORD is not set"),
        ("sslpassword=p x", "sslpassword=*** x"),
        ("ALTER ROLE r PASSWORD 'p' VALID", "ALTER ROLE r PASSWORD *** VALID"),
        ("OPTIONS (user 'u', password 'it''s')", "OPTIONS (user 'u', password ***)"),
        ("ALTER ROLE r PASSWORD $$p$$", "ALTER ROLE r PASSWORD ***"),
        ('password authentication failed for user "p"', 'password authentication failed for user "p"'),
    ],
)
def test_a_password_is_masked_where_it_stands_as_one(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_short_password_spoils_no_message(run: Command, asking: Database) -> None:
    url = changed(asking, port="5433").libpq_url()
    result = run("rag", "migrate", "status", DATABASE_URL=url)
    assert result.returncode == 69
    assert ".s.PGSQL.5433" in result.stderr
    assert "***" not in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h:99999/d",
        "postgresql://h:0/d",
        "postgresql://h/d?sslmode=maybe",
        "postgresql://h/d?connect_timeout=soon",
        "postgresql://h%00/d",
        "postgresql://h/d?application_name=%00",
        "postgresql://h/d?hostaddr=1,2",
        "postgresql://h/d?hostaddr=1.2.3.999",
        "postgresql://" + "a" * 64 + "/d",
        "postgresql://" + "ü" * 70 + "/d",
        "postgresql://h..x/d",
        "postgresql:///d?host=%2F" + "a" * 120,
        "postgresql://127.0.0.1/d?sslrootcert=/none&sslmode=verify-full",
        "postgresql://127.0.0.1/d?require_auth=guess",
        "postgresql://127.0.0.1/d?load_balance_hosts=x",
        "postgresql://127.0.0.1/d?ssl_min_protocol_version=TLSv9",
        "postgresql://127.0.0.1/d?min_protocol_version=9",
    ],
)
def test_no_setting_of_a_user_ends_in_a_traceback(url: str) -> None:
    with pytest.raises(RagSchemaError) as refused:
        migrations.status(find_database(url))
    assert refused.value.exit_code in (69, 78)
    assert refused.value.remedy
