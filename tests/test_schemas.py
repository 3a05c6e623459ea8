"""Which schema is migrated, whatever search_path says; and what is in it that is not ours."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from checkouts import made_role, rows, wait_until
from conftest import ROOT, Command, connect, made_database
from ragschema import embedded, migrations
from ragschema.database.options import Options
from ragschema.database.rights import create_extension
from ragschema.database.server import Extension, check_extension
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, LockNotObtained
from ragschema.migrations import preparation, repair
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.revisions.manifest import read_manifest
from ragschema.state.catalogue import read_catalogue

HEAD = read_manifest().head
FIRST = read_manifest().revisions[0].revision
BOTH = pytest.mark.parametrize(
    "command", [("rag", "migrate"), ("alembic", "upgrade", "head")], ids=["rag", "alembic"]
)


def dump_schema(database: Database, schema: str, extension: str = "public") -> str:
    """Return what pg_dump says of one schema, as if it were public."""
    text = subprocess.check_output(
        [
            embedded.program("pg_dump"),
            "--schema-only",
            "--no-owner",
            "--no-privileges",
            "-n",
            f'"{schema}"',
            database.libpq_url(),
        ],
        text=True,
    )
    lines = [
        line
        for line in text.splitlines()
        if line and not re.match(r"--|\\|SET |SELECT |CREATE SCHEMA|COMMENT ON SCHEMA", line)
    ]
    text = re.sub(rf"\b{extension}\.(vector|halfvec)", r"public.\1", "\n".join(lines))
    quoted = schema if re.fullmatch("[a-z_0-9]+", schema) else f'"{schema}"'
    path = ", ".join(f"'{name}'" for name in dict.fromkeys((schema, extension, "pg_temp")))
    text = text.replace(
        f"SET search_path TO {path}\n", "SET search_path TO 'public', 'pg_temp'\n"
    )  # of functions
    return re.sub(rf"(?<!\w){re.escape(quoted)}\.", "public.", text)


@pytest.fixture(scope="module")
def reference(server: Mapping[str, str], template: str) -> tuple[object, str]:
    """The catalogue and the dump of public in a database at head."""
    with made_database(server, template) as database, connect(database) as connection:
        return read_catalogue(connection, "public"), dump_schema(database, "public")


def with_path(database: Database, search_path: str) -> Database:
    """Return a database as the URL's ``options`` reach it with a search_path."""
    value = re.sub(r"([\\ ])", r"\\\1", search_path)
    return Database({**database.parameters, "options": f"-c search_path={value}"}, "the tests")


def make_schemas(database: Database, *names: str) -> None:
    with connect(database) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))


def schemas_with_documents(database: Database) -> list[object]:
    with connect(database) as connection:
        return rows(
            connection, "SELECT schemaname::text FROM pg_tables WHERE tablename = 'rag_documents' ORDER BY 1"
        )


def assert_is_head(
    database: Database, schema: str, reference: tuple[object, str], extension: str = "public"
) -> None:
    with connect(database) as connection:
        connection.execute(
            sql.SQL("SET search_path = {}, {}").format(sql.Identifier(schema), sql.Identifier(extension))
        )
        assert read_catalogue(connection, schema) == reference[0]
        assert rows(connection, "SELECT version_num FROM rag_alembic_version") == [HEAD]
    assert dump_schema(database, schema, extension) == reference[1]


# which schema


@pytest.mark.parametrize(
    ("search_path", "made", "target"),
    [
        ("other, public", ["other"], "other"),
        ('"$user", public', [], "public"),
        ('"$user", public', ["postgres"], "postgres"),
        ('"Mixed Case", public', ["Mixed Case"], "Mixed Case"),
        ("other", ["other"], "other"),
        ('"$user", missing, other', ["other"], "other"),
    ],
)
def test_the_first_schema_of_the_search_path_is_migrated(
    empty_database: Database, reference: tuple[object, str], search_path: str, made: list[str], target: str
) -> None:
    make_schemas(empty_database, *made)
    named = with_path(empty_database, search_path)
    assert migrations.upgrade(named, FIRST).current == FIRST
    assert schemas_with_documents(empty_database) == [target]
    if target not in ("other", "postgres"):  # those are seen to hold everything by the tests that follow
        migrations.upgrade(named)
        assert_is_head(empty_database, target, reference)
    assert migrations.upgrade(named, FIRST).applied == []


@BOTH
def test_both_commands_migrate_the_schema_of_a_role_not_public(
    run: Command, empty_database: Database, reference: tuple[object, str], command: tuple[str, ...]
) -> None:
    make_schemas(empty_database, "postgres")
    result = run(*command, cwd=ROOT, DATABASE_URL=empty_database.libpq_url())
    assert result.returncode == 0, result.stderr
    assert schemas_with_documents(empty_database) == ["postgres"]
    assert_is_head(empty_database, "postgres", reference)


@pytest.mark.parametrize(
    ("search_path", "said", "remedy"),
    [
        ("missing, public", "there is no schema missing that postgres may use", "`--schema missing`"),
        ("", "No schema of the search_path (empty) can hold our tables for postgres", "`--schema NAME`"),
        (
            "pg_catalog, public",
            "No schema of the search_path (pg_catalog, public) can hold",
            "`--schema NAME`",
        ),
        (
            "other, public",
            "starts with other, but schema public has the tables",
            "`--schema public`, or `--schema other`",
        ),
    ],
)
def test_a_search_path_that_is_not_clear_is_refused_with_the_fix(
    run: Command, database: Database, search_path: str, said: str, remedy: str
) -> None:
    """The database is migrated in public; alembic alone would make nothing in other, and exit 0."""
    with connect(database) as connection:
        connection.execute("CREATE SCHEMA other")
        connection.execute("UPDATE rag_alembic_version SET version_num = %s", (FIRST,))
    named = with_path(database, search_path)
    with pytest.raises(ConfigurationError) as refused:
        migrations.upgrade(named)
    assert said in refused.value.message
    assert remedy in refused.value.remedy
    with pytest.raises(ConfigurationError):
        migrations.status(named)
    result = run("alembic", "upgrade", "head", cwd=ROOT, DATABASE_URL=named.libpq_url())
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
    assert schemas_with_documents(database) == ["public"]


def test_a_schema_alone_in_the_search_path_is_meant_though_public_has_tables(
    database: Database, reference: tuple[object, str]
) -> None:
    make_schemas(database, "other")
    assert migrations.upgrade(with_path(database, "other")).current == HEAD
    assert_is_head(database, "other", reference)


@pytest.mark.parametrize(
    ("search_path", "schema"),
    [("public", "fresh"), ("missing", "fresh"), ("", "fresh"), ("", 'Our "rag"')],
)
def test_a_named_schema_is_made_and_holds_everything_whatever_the_search_path(
    empty_database: Database, reference: tuple[object, str], schema: str, search_path: str
) -> None:
    assert migrations.upgrade(with_path(empty_database, search_path), schema=schema).current == HEAD
    with connect(empty_database) as connection:
        in_other_schemas = rows(
            connection,
            "SELECT relname FROM pg_class WHERE relname LIKE 'rag\\_%%' AND relnamespace <> "
            "(SELECT oid FROM pg_namespace WHERE nspname = %s)",
            schema,
        )
    assert in_other_schemas == []
    if schema == "fresh":
        assert_is_head(empty_database, schema, reference)
    assert migrations.status(empty_database, schema=schema).state == "OK"
    migrations.downgrade(empty_database, "base", schema=schema)
    assert schemas_with_documents(empty_database) == []


def test_the_schema_is_an_option_or_a_setting_for_both_commands(
    run: Command, empty_database: Database, reference: tuple[object, str]
) -> None:
    url = empty_database.libpq_url()
    assert run("rag", "migrate", "--schema", "one", DATABASE_URL=url).returncode == 0
    assert run("rag", "migrate", DATABASE_URL=url, RAG_SCHEMA="two").returncode == 0
    assert run("alembic", "upgrade", "head", cwd=ROOT, DATABASE_URL=url, RAG_SCHEMA="three").returncode == 0
    assert schemas_with_documents(empty_database) == ["one", "three", "two"]
    for schema in ("one", "two", "three"):
        assert_is_head(empty_database, schema, reference)
    empty = run("rag", "migrate", DATABASE_URL=url, RAG_SCHEMA="")
    assert empty.returncode == 78
    assert "RAG_SCHEMA is empty" in empty.stderr


def test_two_schemas_of_a_database_are_independent(empty_database: Database) -> None:
    with connect(empty_database) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("one"),))
        two = Options(empty_database, schema="two", lock_wait=0.0)
        assert migrations.upgrade(two).current == HEAD  # the lock of one does not stop it
        holder.execute("SELECT pg_advisory_unlock_all()")
    assert migrations.status(empty_database, schema="one").state == "EMPTY"
    assert migrations.upgrade(empty_database, FIRST, schema="one").current == FIRST
    assert migrations.status(empty_database, schema="two").state == "OK"
    migrations.downgrade(empty_database, "base", schema="two")
    assert migrations.status(empty_database, schema="one").current == FIRST
    assert [entry.is_applied for entry in migrations.history(empty_database, schema="one")][:2] == [
        True,
        False,
    ]
    assert all(not entry.attempts for entry in migrations.history(empty_database, schema="one")[1:])


# the extension


@BOTH
@pytest.mark.parametrize("schema", ["public", "ours"])
def test_the_extension_may_live_in_another_schema(
    run: Command,
    empty_database: Database,
    reference: tuple[object, str],
    command: tuple[str, ...],
    schema: str,
) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION vector WITH SCHEMA extensions")
        name = empty_database.parameters["dbname"]
        connection.execute(f'ALTER DATABASE {name} SET search_path = "$user", public, extensions'.encode())
    result = run(*command, cwd=ROOT, DATABASE_URL=empty_database.libpq_url(), RAG_SCHEMA=schema)
    assert result.returncode == 0, result.stderr
    assert_is_head(empty_database, schema, reference, "extensions")
    migrations.downgrade(empty_database, "base", schema=schema)
    with connect(empty_database) as connection:
        assert rows(
            connection, "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
        ) == ["extensions"]


def test_two_deployers_may_create_the_extension_at_once(empty_database: Database) -> None:
    with psycopg.connect(empty_database.libpq_url()) as other, connect(empty_database) as ours:
        other.execute("CREATE EXTENSION vector")
        creating = threading.Thread(target=create_extension, args=(ours, "public"))
        creating.start()
        with connect(empty_database) as looker:
            wait_until(
                lambda: rows(
                    looker,
                    "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
                    ours.info.backend_pid,
                ),
                "the second to wait for the first",
            )
        other.commit()
        creating.join()
        assert rows(ours, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == [1]
        assert not ours.broken


def test_a_role_that_may_not_create_the_extension_is_given_the_line_for_one_who_may(
    empty_database: Database,
) -> None:
    with made_role(empty_database, "CREATE SCHEMA ours AUTHORIZATION _role_") as plain:
        name = plain.parameters["user"]
        with pytest.raises(ConfigurationError, match=f"role {name} may not create the extension") as refused:
            migrations.upgrade(plain, schema="ours")
        assert refused.value.evidence == 'CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA "public";'
        with connect(empty_database) as administrator:
            administrator.execute(refused.value.evidence.encode())
        assert migrations.upgrade(plain, schema="ours").current == HEAD


@pytest.mark.parametrize(
    ("extension", "said", "remedy"),
    [
        (Extension(None, None, None), "does not have the extension vector", "postgresql-18-pgvector"),
        (
            Extension(None, "0.6.2", None),
            "pgvector is 0.6.2; ragschema needs 0.7",
            "Upgrade pgvector on the server",
        ),
        (Extension("0.5.1", "0.8.6", "public"), "pgvector is 0.5.1", "Run `ALTER EXTENSION vector UPDATE;`"),
        (Extension("0.5.1", "0.6.2", "public"), "pgvector is 0.5.1", "Upgrade pgvector on the server"),
    ],
)
def test_an_extension_that_cannot_serve_is_refused(extension: Extension, said: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_extension(extension)
    assert said in refused.value.message
    assert remedy in refused.value.remedy


def test_an_extension_with_known_faults_is_a_warning() -> None:
    assert "pgvector 0.8.1 has faults" in (check_extension(Extension("0.8.1", "0.8.6", "public")) or "")
    assert check_extension(Extension("0.8.4", "0.8.6", "public")) is None
    assert check_extension(Extension(None, "0.10.0", None)) is None


# roles


def test_a_role_without_rights_is_given_the_line_for_one_who_may_grant_them(
    empty_database: Database,
) -> None:
    with connect(empty_database) as administrator:
        administrator.execute("CREATE SCHEMA extensions")
        administrator.execute("CREATE EXTENSION vector WITH SCHEMA extensions")
        administrator.execute("CREATE SCHEMA taken")
        with made_role(empty_database) as plain:
            name = plain.parameters["user"]
            for schema, fix in (
                ("ours", f'CREATE SCHEMA "ours" AUTHORIZATION "{name}";'),
                ("ours", f'GRANT USAGE ON SCHEMA "extensions" TO "{name}";'),
                ("taken", f'GRANT USAGE, CREATE ON SCHEMA "taken" TO "{name}";'),
            ):
                with pytest.raises(ConfigurationError) as refused:
                    migrations.upgrade(plain, schema=schema)
                assert refused.value.evidence == fix
                administrator.execute(fix.encode())
            assert migrations.upgrade(plain, schema="ours").current == HEAD
            assert migrations.upgrade(plain, schema="taken").current == HEAD


def test_role_is_set_after_the_login(empty_database: Database) -> None:
    with connect(empty_database) as administrator:
        administrator.execute("CREATE EXTENSION vector")
        with made_role(
            empty_database,
            "CREATE SCHEMA ours AUTHORIZATION _role_",
            "ALTER ROLE _role_ NOLOGIN",
        ) as owner:
            role = owner.parameters["user"]
            told = Options(empty_database, schema="ours", role=role)
            assert migrations.upgrade(told).current == HEAD
            owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'ours'"
            assert rows(administrator, owners) == [role]
            assert migrations.history(told)[-1].attempts[0].migrated_by == "postgres"
            with pytest.raises(ConfigurationError, match="refuses to set role to nobody_of_ours"):
                migrations.upgrade(Options(empty_database, role="nobody_of_ours"))


# other packages


@contextmanager
def untouched(database: Database, table: str) -> Iterator[None]:
    """Assert that a table is the same afterwards, byte for byte, and its catalogue rows with it."""

    def look(connection: psycopg.Connection[psycopg.rows.TupleRow]) -> list[object]:
        connection.execute("CHECKPOINT")  # what is in memory only goes to the file
        return [
            rows(connection, f"SELECT pg_read_binary_file(pg_relation_filepath('{table}'))"),
            rows(connection, f"SELECT xmin, xmax, ctid, * FROM {table}"),
            rows(
                connection, f"SELECT c::text, c.xmin, c.ctid FROM pg_class c WHERE oid = '{table}'::regclass"
            ),
            rows(
                connection, f"SELECT a::text, a.xmin FROM pg_attribute a WHERE attrelid = '{table}'::regclass"
            ),
        ]

    with connect(database) as connection:
        connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {table}".encode())
        before = look(connection)
        yield
        assert look(connection) == before


def test_the_alembic_version_of_another_package_is_untouched_by_everything(
    run: Command, empty_database: Database
) -> None:
    def alembic(*arguments: str) -> None:
        result = run("alembic", *arguments, cwd=ROOT, DATABASE_URL=empty_database.libpq_url())
        assert result.returncode == 0, result.stderr

    with connect(empty_database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('1f2e3d4c5b6a')")
        with untouched(empty_database, "alembic_version"):
            preparation.prepare_database(Options(empty_database))
            migrations.upgrade(empty_database)
            migrations.downgrade(empty_database, "-1")
            migrations.upgrade(empty_database)
            migrations.stamp(empty_database, HEAD, force=True)
            migrations.verify(empty_database)
            repair.repair(Options(empty_database))
            migrations.downgrade(empty_database, "base")
            alembic("upgrade", "head")
            alembic("-x", "force=yes", "stamp", FIRST)
            alembic("stamp", "--purge", HEAD)
            alembic("downgrade", "base")
            migrations.upgrade(empty_database)
            connection.execute("DROP TABLE rag_alembic_version, rag_migration_history")
            assert not migrations.adopt(empty_database).was_managed


# names


EVERYTHING_ODD = 'it\'s "a"\nb.c,d:e{0} %(x)s 100%\\ -- /* $$'
ODD_NAMES = (
    *("it's", 'a"b', "a\nb", "a b", "a.b", "a,b", "100%", "%(x)s", "a:b", "a{0}b", "a\\b", "--", "/*", "$$"),
    *("UPPER", "x" * 63),
)
LONGEST = f" Über UPPER 😀 {'é' * 22} "


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_odd_character_of_a_schema_is_part_of_its_name(empty_database: Database, name: str) -> None:
    """Each alone, in the first revision; all of them go the whole way below, in three names."""
    assert migrations.upgrade(empty_database, FIRST, schema=name).current == FIRST
    with connect(empty_database) as connection:
        assert rows(connection, "SELECT nspname::text FROM pg_namespace WHERE nspname = %s", name) == [name]
    assert migrations.status(empty_database, schema=name).current == FIRST
    assert migrations.verify(empty_database, schema=name).is_clean
    assert migrations.upgrade(empty_database, FIRST, schema=name).applied == []
    migrations.downgrade(empty_database, "base", schema=name)
    assert schemas_with_documents(empty_database) == []


@pytest.mark.parametrize("name", [EVERYTHING_ODD, LONGEST, "select"])
def test_any_name_of_a_schema_goes_the_whole_way(empty_database: Database, name: str) -> None:
    """What migrates is verified: the two read the name alike."""
    assert len(name.encode()) <= 63 == len(LONGEST.encode())
    assert migrations.upgrade(empty_database, schema=name).current == HEAD
    with connect(empty_database) as connection:
        assert rows(connection, "SELECT nspname::text FROM pg_namespace WHERE nspname = %s", name) == [name]
    assert migrations.status(empty_database, schema=name).state == "OK"
    assert migrations.verify(empty_database, schema=name).is_clean
    assert migrations.upgrade(empty_database, schema=name).applied == []
    assert migrations.downgrade(empty_database, "-1", schema=name).applied
    assert migrations.plan(empty_database, schema=name).revisions
    migrations.downgrade(empty_database, "base", schema=name)
    assert schemas_with_documents(empty_database) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 64, "is 64 bytes long, and PostgreSQL cuts names at 63"),
        ("é" * 32, "is 64 bytes long, and PostgreSQL cuts names at 63"),
        ("a\0b", "holds a character that no name can hold"),
        ("\udcff", "holds a character that no name can hold"),
        ("pg_ours", "which PostgreSQL keeps for itself"),
        ("information_schema", "which PostgreSQL keeps for itself"),
        ("$user", "which PostgreSQL keeps for itself"),
        (" \t", "is empty"),
    ],
)
def test_a_name_that_no_schema_can_have_is_refused(empty_database: Database, name: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        migrations.upgrade(empty_database, schema=name)
    assert said in refused.value.message
    assert schemas_with_documents(empty_database) == []


def test_a_search_path_is_read_as_the_server_reads_it(empty_database: Database) -> None:
    """It cuts names at 63 bytes, and makes letters of ASCII small only."""
    make_schemas(empty_database, "x" * 63, "Öl")
    for search_path, target in (("x" * 70, "x" * 63), ("Öl, public", "Öl")):
        named = with_path(empty_database, search_path)
        assert migrations.upgrade(named).current == HEAD
        assert target in schemas_with_documents(empty_database)
        assert migrations.verify(named).is_clean


def test_the_deployer_lock_hashes_the_name_as_the_server_has_it(empty_database: Database) -> None:
    name = "Our 'schema'"
    make_schemas(empty_database, name)
    with connect(empty_database) as holder:
        digest = "substr(encode(sha256(('ragschema deployer ' || nspname)::bytea), 'hex'), 1, 16)"
        key = rows(
            holder, f"SELECT ('x' || {digest})::bit(64)::bigint FROM pg_namespace WHERE nspname = %s", name
        )
        assert key == [deployer_lock_key(name)]
        holder.execute("SELECT pg_advisory_lock(%s)", (key[0],))
        with pytest.raises(LockNotObtained):
            migrations.upgrade(Options(empty_database, schema=name, lock_wait=0.0))
