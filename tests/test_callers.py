"""Programs that call Alembic, or ours, with their own connection, engine or URL: that database is the one used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine

from conftest import ROOT, Command, connect, made_database
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, UsageError
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.revisions.manifest import read_manifest

FIRST, HEAD = "20251225160000", read_manifest().head
SETTINGS = (  # but those of extensions, which come with their first call
    "SELECT name, setting FROM pg_settings WHERE context IN ('user', 'superuser')"
    " AND strpos(name, '.') = 0 ORDER BY 1"
)


def configuration(**attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "alembic"))
    config.attributes.update(attributes)
    return config


@pytest.fixture
def other(server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database that the settings name: a caller who names another one does not mean it."""
    with made_database(server) as database:
        monkeypatch.setenv("DATABASE_URL", database.libpq_url())
        yield database
        assert migrations.status(database).state == "EMPTY"


def test_sqlalchemys_url_is_the_database(empty_database: Database, other: Database) -> None:
    config = configuration()
    url = empty_database.url().render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, FIRST)
    assert migrations.status(empty_database).current == FIRST


def test_a_url_in_an_ini_file_is_the_database(
    empty_database: Database, other: Database, tmp_path: Path, run: Command
) -> None:
    url = empty_database.url().render_as_string(hide_password=False).replace("%", "%%")
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {ROOT / 'alembic'}\nsqlalchemy.url = {url}\n")
    result = run("alembic", "-c", str(ini), "upgrade", FIRST, cwd=tmp_path, DATABASE_URL=other.libpq_url())
    assert result.returncode == 0, result.stderr
    assert migrations.status(empty_database).current == FIRST
    ini.write_text(ini.read_text().replace(url, "driver://user:pass@localhost/dbname"))
    refused = run("alembic", "-c", str(ini), "upgrade", FIRST, cwd=tmp_path, DATABASE_URL=other.libpq_url())
    assert refused.returncode != 0
    assert (
        "sqlalchemy.url of Alembic's configuration is not a PostgreSQL URL" in refused.stderr + refused.stdout
    )


def test_the_callers_connection_is_used_and_given_back_as_it_was(
    empty_database: Database, other: Database
) -> None:
    engine = sa.create_engine(empty_database.url(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        pid = driver.info.backend_pid
        connection.exec_driver_sql("SET lock_timeout = '7s'")
        connection.exec_driver_sql("SELECT pg_advisory_lock(42)")
        connection.commit()
        before = connection.exec_driver_sql(SETTINGS).fetchall()
        connection.rollback()
        for step in (FIRST, "head"):
            command.upgrade(configuration(connection=connection), step)
        command.downgrade(configuration(connection=connection), FIRST)
        assert not driver.closed
        assert not driver.autocommit
        assert driver.info.backend_pid == pid
        assert connection.exec_driver_sql(SETTINGS).fetchall() == before
        locks = connection.exec_driver_sql(
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )
        assert locks.scalars().all() == [42]
        connection.rollback()
        status = migrations.status(connection)
        assert status.current == FIRST
    assert migrations.history(empty_database)[0].attempts[0].direction == "upgrade"


def test_the_lock_is_on_the_callers_connection(empty_database: Database, other: Database) -> None:
    seen: list[object] = []

    def look(connection: sa.Connection, schema: str) -> None:
        key = deployer_lock_key(schema)
        with connect(empty_database) as another:
            seen.extend(
                another.execute(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = %s"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                    (key & 0xFFFFFFFF,),
                ).fetchall()
            )

    engine = sa.create_engine(empty_database.url(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        migrations.upgrade(connection, FIRST, check=look)
        assert seen == [(driver.info.backend_pid,)]


@pytest.mark.parametrize("key", ["connection", "engine", "connectable"])
def test_an_engine_among_the_attributes_is_used(empty_database: Database, other: Database, key: str) -> None:
    engine = sa.create_engine(empty_database.url())
    command.upgrade(configuration(**{key: engine}), FIRST)
    assert engine.pool.status().endswith("Current Checked out connections: 0")
    engine.dispose()
    assert migrations.status(empty_database).current == FIRST


def test_a_transaction_is_refused_in_words(empty_database: Database, other: Database) -> None:
    engine = sa.create_engine(empty_database.url(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        with pytest.raises(CommandError, match="The connection is in a transaction"):
            command.upgrade(configuration(connection=connection), "head")
        with pytest.raises(UsageError, match="in a transaction") as refused:
            migrations.upgrade(connection)
        assert "engine.connect()" in refused.value.remedy
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute("SELECT 1")
        with pytest.raises(UsageError, match="in a transaction"):
            migrations.status(connection)
    assert migrations.status(empty_database).state == "EMPTY"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SELECT 1")  # begun in name only
        assert migrations.upgrade(connection, FIRST).current == FIRST


def test_what_cannot_be_used_is_refused_in_words(empty_database: Database, other: Database) -> None:
    with pytest.raises(UsageError, match="cannot be a AsyncEngine"):
        migrations.upgrade(create_async_engine(empty_database.url()))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be a int"):
        migrations.status(5432)  # type: ignore[arg-type]
    with pytest.raises(CommandError, match="cannot be a AsyncEngine"):
        command.upgrade(configuration(connection=create_async_engine(empty_database.url())), "head")
    sqlite = sa.create_engine("sqlite://", poolclass=sa.NullPool)
    with pytest.raises(UsageError, match="one of sqlite3, and migrations run on psycopg"):
        migrations.upgrade(sqlite)
    engine = sa.create_engine(empty_database.url())
    with pytest.raises(
        CommandError, match="Several of Alembic's attributes are databases: connection, engine"
    ):
        command.upgrade(configuration(connection=engine, engine=engine), "head")


def test_an_unknown_permission_is_refused(run: Command, empty_database: Database, other: Database) -> None:
    arguments = ("-x", f"url={empty_database.libpq_url()}", "upgrade", "head")
    refused = run("alembic", *arguments, cwd=ROOT, DATABASE_URL=other.libpq_url())
    assert refused.returncode != 0
    assert "-x url is not known here" in refused.stderr + refused.stdout


@pytest.mark.parametrize("make", [sa.create_engine, lambda url: url, str], ids=["engine", "url", "string"])
def test_the_library_takes_an_engine_a_url_and_a_string(
    empty_database: Database, other: Database, make: Callable[[object], object]
) -> None:
    url = empty_database.url()
    given = url.render_as_string(hide_password=False) if make is str else make(url)
    assert migrations.status(given).state == "EMPTY"  # type: ignore[arg-type]
    assert migrations.upgrade(given, FIRST).current == FIRST  # type: ignore[arg-type]
    assert migrations.plan(given).current == FIRST  # type: ignore[arg-type]
    assert migrations.history(given)[0].is_applied  # type: ignore[arg-type]
    assert migrations.verify(given).is_clean  # type: ignore[arg-type]
    assert migrations.downgrade(given, "base").current is None  # type: ignore[arg-type]
    if isinstance(given, sa.Engine):
        with given.connect() as connection:
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"
        given.dispose()


def test_settings_of_an_engine_that_are_in_no_url_are_kept(empty_database: Database, other: Database) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA own")
    engine = sa.create_engine(empty_database.url(), connect_args={"options": "-c search_path=own"})
    migrations.upgrade(engine, FIRST)
    engine.dispose()
    assert migrations.status(empty_database, schema="own").current == FIRST
    assert migrations.status(empty_database, schema="public").state == "EMPTY"


def test_a_url_of_another_server_is_refused_with_its_source() -> None:
    with pytest.raises(ConfigurationError, match="the caller is not a PostgreSQL URL"):
        migrations.status(sa.make_url("mysql://h/d"))
