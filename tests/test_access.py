"""Access: what a migrator, an application and a reader may do, by real logins, now and after later revisions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from conftest import Command, connect, made_database, make_database, run_psql
from plan_scans import indexes_read, scans
from publishing import embed, make_plan
from ragschema import (
    BulkDocument,
    collections,
    create_engine,
    embedding_models,
    hybrid_search,
    jobs,
    migrations,
    nearest_chunks,
    publish,
    publish_many,
    purge_document,
    version_chunks,
)
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, RagSchemaError, UnmanagedDatabase, UsageError
from ragschema.migrations.checks import Check
from ragschema.migrations.grants import apply_grants, find_grants
from ragschema.migrations.health import check_health

# roles are the server's, which several processes of a run share
MIGRATOR, APP, READER, OTHER = (
    f'{name} "{os.getpid()}"' for name in ("the migrator", "the app", "A reader", "another")
)
ODD = 'Ten"ant; A'


FUNCTIONS = """
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
WHERE p.proname LIKE 'rag%' AND r.rolname = current_user
"""


def quote(*names: str) -> str:
    return sql.Identifier(*names).as_string()


def log_in(database: Database, role: str) -> Database:
    return Database({**database.parameters, "user": role}, "the tests")


@pytest.fixture(scope="module")
def roles(server: Mapping[str, str]) -> Iterator[None]:
    """Four roles that may log in and do nothing else."""
    with connect(Database({**server, "dbname": "postgres"}, "the tests")) as superuser:
        for role in (MIGRATOR, APP, READER, OTHER):
            superuser.execute(f"CREATE ROLE {quote(role)} LOGIN".encode())
        yield
        for role in (MIGRATOR, APP, READER, OTHER):
            superuser.execute(f"DROP ROLE {quote(role)}".encode())


@pytest.fixture(scope="module", params=["public", ODD])
def migrated(
    request: pytest.FixtureRequest, server: Mapping[str, str], roles: None
) -> Iterator[tuple[Database, str]]:
    """A database whose tables the migrator has made, in public or in a schema of an odd name."""
    schema: str = request.param
    with made_database(server) as database:
        with connect(database) as superuser:
            superuser.execute("CREATE EXTENSION vector")
            if schema == "public":
                superuser.execute(f"GRANT CREATE ON SCHEMA public TO {quote(MIGRATOR)}".encode())
            else:
                superuser.execute(f"CREATE SCHEMA {quote(schema)} AUTHORIZATION {quote(MIGRATOR)}".encode())
        migrations.upgrade(log_in(database, MIGRATOR), schema=schema)
        with connect(log_in(database, MIGRATOR)) as migrator:  # as careful sites do
            migrator.execute("SET search_path = ''")
            for (function,) in migrator.execute(FUNCTIONS).fetchall():
                migrator.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC".encode())
        yield database, schema
        with connect(database) as superuser:
            for role in (READER, APP, OTHER, MIGRATOR):
                superuser.execute(f"DROP OWNED BY {quote(role)} CASCADE".encode())


@pytest.fixture(scope="module")
def granted(migrated: tuple[Database, str]) -> tuple[Database, str]:
    """The same, with the grants, which the migrator has given; then come a model's partition and a table."""
    database, schema = migrated
    migrator = log_in(database, MIGRATOR)
    applied = apply_grants(migrator, app=APP, read_only=READER, schema=schema)
    assert applied.is_applied
    assert applied.migrator == MIGRATOR
    assert applied.changed
    embedding_models.add_model(migrator, "default-2", 768, schema=schema)
    embedding_models.add_model(migrator, "later", 8, schema=schema)
    with connect(migrator) as connection:
        connection.execute(f"CREATE TABLE {quote(schema, 'rag_of_a_later_revision')} (n serial)".encode())
        connection.execute(
            f"CREATE FUNCTION {quote(schema, 'rag_of_a_later_revision')}() RETURNS int LANGUAGE sql"
            " AS 'SELECT 1'".encode()
        )
    return database, schema


@pytest.fixture
def engine_of(granted: tuple[Database, str]) -> Iterator[Callable[[str], sa.Engine]]:
    engines = []

    def make(role: str) -> sa.Engine:
        database, schema = granted
        engines.append(create_engine(log_in(database, role).libpq_url(), schema=schema))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def write_something(engine: sa.Engine) -> tuple[str, Any, Any]:
    """Do all that a service does but its end; return an article, its version and a collection."""
    article = str(uuid4())
    with Session(engine) as session, session.begin():
        made = collections.create_collection(session, article, "A part")
        plan = make_plan(session, article, ["Trains run late"], collection_ids=[made.id])
        others = {model.key: [np.ones(model.dimensions)] for model in plan.models if not model.is_active}
        version = publish(session, plan, [embed("Trains run late")], model_embeddings=others)
    return article, version.id, made.id


def test_the_application_publishes_searches_and_works_the_queue(
    engine_of: Callable[[str], sa.Engine],
) -> None:
    engine = engine_of(APP)
    article, version, collection = write_something(engine)
    with engine.connect() as connection:
        bulk = BulkDocument(f"{article} too", ["Cats"], [embed("Cats")], "1", "c1", "e1")
        assert publish_many(connection, [bulk]).added == 1
    with Session(engine) as session, session.begin():
        hits = session.execute(nearest_chunks(embed("Trains run late"), model="default-2", limit=5)).all()
        assert [hit.article_id for hit in hits[:1]] == [article]
        assert session.execute(nearest_chunks(np.ones(8), model="later", collection_ids=[collection])).all()
        assert session.execute(hybrid_search(None, "late", collection_ids=[collection])).all()
        assert session.execute(version_chunks(version)).all()
        jobs.enqueue(session, "embed", {})
        (job,) = jobs.claim(session, "the tests", ["embed"])
        assert jobs.complete(session, job)
        purge_document(session, f"{article} too")
        migrations.assert_current(session.connection())
        session.execute(sa.text("INSERT INTO rag_of_a_later_revision DEFAULT VALUES"))
        assert session.scalar(sa.text("SELECT rag_of_a_later_revision()")) == 1


def test_the_reader_searches_and_writes_nothing(
    granted: tuple[Database, str], engine_of: Callable[[str], sa.Engine]
) -> None:
    database, schema = granted
    article, version, collection = write_something(engine_of(APP))
    engine = engine_of(READER)
    with Session(engine) as session:
        hits = session.execute(nearest_chunks(embed("Trains run late"), model="default-2", limit=50)).all()
        assert article in {hit.article_id for hit in hits}
        assert session.execute(nearest_chunks(np.ones(8), model="later", collection_ids=[collection])).all()
        assert session.execute(hybrid_search(None, "late", collection_ids=[collection])).all()
        assert session.execute(version_chunks(version)).all()
        assert collections.find_collection(session, article).documents == 1
        assert session.execute(sa.text("SELECT * FROM rag_of_a_later_revision")).all() is not None
        migrations.assert_current(session.connection())
        session.rollback()
        for call in (
            lambda: jobs.enqueue(session, "embed", {}),
            lambda: jobs.claim(session, "the tests", ["embed"]),
            lambda: collections.delete_collection(session, collection),
            lambda: collections.add_documents(session, collection, [article]),
            lambda: purge_document(session, article),
        ):
            with pytest.raises(ProgrammingError, match="permission denied"):
                call()
            session.rollback()
    for statement in ("INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}", "TRUNCATE {} CASCADE"):
        refuse_each(log_in(database, READER), schema, statement)


def refuse_each(database: Database, schema: str, statement: str) -> None:
    """See a statement refused of each table of ours."""
    with connect(database) as connection:
        tables = connection.execute(
            r"SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname LIKE 'rag\_%%'"
            " AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)",
            (schema,),
        ).fetchall()
        assert len(tables) > 12
        for (table,) in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.format(quote(schema, table)).encode())


@pytest.mark.parametrize("role", [APP, READER], ids=["app", "reader"])
def test_neither_drops_defines_or_truncates(granted: tuple[Database, str], role: str) -> None:
    database, schema = granted
    for statement in ("DROP TABLE {} CASCADE", "TRUNCATE {} CASCADE", "ALTER TABLE {} ADD COLUMN n int"):
        refuse_each(log_in(database, role), schema, statement)
    with connect(log_in(database, role)) as connection:
        for statement in (
            f"CREATE TABLE {quote(schema, 'theirs')} ()",
            f"DROP FUNCTION {quote(schema, 'rag_words')}",
            f"DROP SCHEMA {quote(schema)} CASCADE",
            f"CREATE INDEX ON {quote(schema, 'rag_jobs')} (id)",
            f"UPDATE {quote(schema, 'rag_alembic_version')} SET version_num = '1'",
            f"DELETE FROM {quote(schema, 'rag_migration_history')}",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    application = health(log_in(database, role), schema)
    assert [
        (each.verdict, each.finding.startswith(f"the role {role} owns nothing")) for each in application
    ] == [("ok", True)]


def health(database: Database, schema: str = "public", app: str | None = None) -> list[Check]:
    checks = check_health(Options(database, schema=schema), app=app)
    return [check for check in checks if check.name == "application"]


ACLS = """
SELECT concat_ws(' ', relname, relacl) FROM pg_class WHERE relacl IS NOT NULL AND relname LIKE 'rag%'
UNION ALL SELECT concat_ws(' ', proname, proacl) FROM pg_proc WHERE proacl IS NOT NULL AND proname LIKE 'rag%'
UNION ALL SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace
UNION ALL SELECT concat_ws(' ', defaclobjtype, defaclacl) FROM pg_default_acl
ORDER BY 1
"""


def read_acls(database: Database) -> list[Any]:
    with connect(database) as connection:
        return connection.execute(ACLS).fetchall()


def test_what_is_printed_does_what_apply_does_and_again_nothing(
    granted: tuple[Database, str], run: Command
) -> None:
    database, schema = granted
    url = log_in(database, MIGRATOR).libpq_url()
    words = ("grants", "--app", APP, "--read-only", READER, "--schema", schema)
    run("rag", *words, "--apply", DATABASE_URL=url)  # of the model's partition that came meanwhile
    before = read_acls(database)
    again = run("rag", *words, "--apply", DATABASE_URL=url)
    assert (again.returncode, again.stdout) == (
        0, "Nothing to do: the roles have all of these rights already.\n",
    )  # fmt: skip
    printed = run("rag", *words, DATABASE_URL=url)
    assert (printed.returncode, "Nothing was applied." in printed.stderr) == (0, True)
    told = json.loads(run("rag", *words, "--json", DATABASE_URL=url).stdout)
    assert printed.stdout.splitlines() == told["statements"]
    assert (told["is_applied"], told["changed"]) == (False, [])
    assert read_acls(database) == before
    with connect(database) as superuser:
        for role in (APP, READER):
            superuser.execute(f"DROP OWNED BY {quote(role)}".encode())
    assert read_acls(database) != before
    run_psql(database, printed.stdout)
    assert apply_grants(log_in(database, MIGRATOR), app=APP, read_only=READER, schema=schema).changed == ()


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str, roles: None) -> Iterator[Database]:
    """The superuser's, at head; the roles have no rights there."""
    yield from make_database(server, template)


@pytest.fixture
def superuser(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """In autocommit; what the roles got is taken from them afterwards."""
    with connect(database) as connection:
        yield connection
        connection.execute(
            "ALTER TABLE rag_jobs OWNER TO postgres; ALTER SCHEMA public OWNER TO pg_database_owner"
        )
        for role in (APP, READER, OTHER):
            connection.execute(f"DROP OWNED BY {quote(role)} CASCADE".encode())
            connection.execute(f"ALTER ROLE {quote(role)} NOSUPERUSER NOBYPASSRLS NOCREATEROLE".encode())
        connection.execute(f"REVOKE {quote(OTHER)} FROM {quote(APP)}".encode())
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC")


EXCESSES = {
    "superuser": ("ALTER ROLE {app} SUPERUSER", "is a superuser"),
    "row security": ("ALTER ROLE {app} BYPASSRLS", "passes row security by"),
    "roles": ("ALTER ROLE {app} CREATEROLE", "may make roles"),
    "by another": ("ALTER ROLE {other} BYPASSRLS; GRANT {other} TO {app}", "may become another"),
    "owner": ("ALTER TABLE rag_jobs OWNER TO {other}; GRANT {other} TO {app}", "which owns rag_jobs"),
    "create": ("GRANT CREATE ON SCHEMA public TO {app}", "has CREATE on the schema public"),
    "create for all": ("GRANT CREATE ON SCHEMA public TO PUBLIC", "has CREATE on the schema public, as PUBLIC has"),
    "truncate": ("GRANT TRUNCATE ON rag_jobs, rag_chunks TO {app}", "has TRUNCATE on rag_chunks and 1 more"),
    "trigger": ("GRANT TRIGGER ON rag_jobs TO {other}; GRANT {other} TO {app}", "has TRIGGER on rag_jobs, as "),
    "truncate for all": ("GRANT TRUNCATE ON rag_jobs TO PUBLIC", "has TRUNCATE on rag_jobs, as PUBLIC has"),
    "revision": ("GRANT UPDATE ON rag_alembic_version TO {app}", "has UPDATE on rag_alembic_version"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXCESSES)
def test_health_warns_of_what_an_application_should_not_be(
    database: Database, superuser: psycopg.Connection[Any], name: str
) -> None:
    """And what it says to do about it mends it."""
    assert [check.verdict for check in health(database, app=APP)] == ["ok"]
    statements, finding = EXCESSES[name]
    for statement in statements.format(app=quote(APP), other=quote(OTHER)).split("; "):
        superuser.execute(statement.encode())
    checks = health(database, app=APP)
    assert {check.verdict for check in checks} == {"warning"}
    assert any(finding in check.finding for check in checks), checks
    for check in checks:
        superuser.execute(check.remedy.encode())
    assert [check.verdict for check in health(database, app=APP)] == ["ok"]


def test_an_owner_is_told_to_migrate_as_another(
    database: Database, superuser: psycopg.Connection[Any]
) -> None:
    superuser.execute(f"ALTER TABLE rag_jobs OWNER TO {quote(APP)}".encode())
    (check,) = health(database, app=APP)
    assert (check.verdict, check.finding) == ("warning", f"the role {APP} owns rag_jobs")
    assert f"REASSIGN OWNED BY {quote(APP)}" in check.remedy


def test_health_looks_at_the_role_that_is_named_or_at_itself_where_it_is_a_service(
    database: Database, run: Command
) -> None:
    assert health(database) == []  # the owner is no application
    assert [check.finding.split()[0] for check in health(log_in(database, APP))] == ["the"]
    url = database.libpq_url()
    told = json.loads(run("rag", "migrate", "health", "--app", APP, "--json", DATABASE_URL=url).stdout)
    assert "application" in {check["name"] for check in told["checks"]}
    with pytest.raises(UsageError, match="There is no role nobody"):
        health(database, app="nobody")


def test_rights_that_were_given_before_and_are_too_many_are_taken(
    database: Database, superuser: psycopg.Connection[Any]
) -> None:
    superuser.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {quote(APP)}, {quote(READER)}".encode())
    assert {check.verdict for check in health(database, app=APP)} == {"warning"}
    applied = apply_grants(database, app=APP, read_only=READER)
    assert sum(statement.startswith("REVOKE") for statement in applied.changed) >= 2
    assert [check.verdict for check in health(database, app=APP)] == ["ok"]
    with connect(log_in(database, READER)) as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("DELETE FROM rag_jobs")
    assert apply_grants(database, app=APP, read_only=READER).changed == ()


@pytest.mark.parametrize("rights", ["none", "select", "some"])
def test_a_role_that_may_not_grant_changes_nothing_and_says_so(
    database: Database, superuser: psycopg.Connection[Any], rights: str
) -> None:
    """Also where PostgreSQL only warns, and where it may grant a part."""
    if rights != "none":
        superuser.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {quote(OTHER)}".encode())
    else:
        superuser.execute(f"GRANT SELECT ON rag_alembic_version TO {quote(OTHER)}".encode())
    if rights == "some":
        superuser.execute(
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {quote(OTHER)} WITH GRANT OPTION".encode()
        )
    before = read_acls(database)
    with pytest.raises(ConfigurationError, match="may not grant all of this"):
        apply_grants(log_in(database, OTHER), app=APP, read_only=READER)
    assert read_acls(database) == before


@pytest.mark.parametrize(
    ("roles_named", "error", "words"),
    [
        ({}, UsageError, "No role is named"),
        ({"app": "public"}, ConfigurationError, "keeps for itself"),
        ({"app": "none"}, ConfigurationError, "keeps for itself"),
        ({"read_only": "pg_read_all_data"}, ConfigurationError, "keeps for itself"),
        ({"app": " "}, ConfigurationError, "The role's name is empty"),
        ({"app": "ä" * 32}, ConfigurationError, "64 bytes long"),
        ({"app": "a\0"}, ConfigurationError, "holds a character"),
        ({"app": APP, "read_only": APP}, UsageError, "are one role"),
        ({"app": "postgres"}, UsageError, "owns our tables"),
    ],
)
def test_roles_that_cannot_be_meant_are_refused(
    database: Database, roles_named: dict[str, str], error: type[RagSchemaError], words: str
) -> None:
    for ask in (find_grants, apply_grants):
        with pytest.raises(error, match=words):
            ask(database, **roles_named)


def test_a_role_that_is_not_there_is_named_and_granted_nothing(database: Database, run: Command) -> None:
    assert find_grants(database, app="no one", read_only=READER).missing_roles == ("no one",)
    before = read_acls(database)
    with pytest.raises(UsageError, match="There is no role no one") as refused:
        apply_grants(database, app="no one", read_only=READER)
    assert refused.value.evidence == 'CREATE ROLE "no one" LOGIN;'
    assert read_acls(database) == before


def test_a_database_without_our_tables_has_nothing_to_grant(empty_database: Database, roles: None) -> None:
    with pytest.raises(UnmanagedDatabase):
        find_grants(empty_database, app=APP)


CHUNKS = """
INSERT INTO rag_documents (article_id) VALUES ('many');
INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version, embedder_version)
SELECT id, 1, 'h', 'c', 'e' FROM rag_documents WHERE article_id = 'many';
INSERT INTO rag_chunks (version_id, ordinal, content)
SELECT v.id, n, 'late' || n FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id
CROSS JOIN generate_series(0, 1999) n WHERE d.article_id = 'many';
UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v
WHERE v.document_id = d.id AND d.article_id = 'many';
VACUUM ANALYZE rag_chunks;
"""


def test_row_security_breaks_copies_and_keeps_searches_by_words_from_their_index(
    database: Database, superuser: psycopg.Connection[Any]
) -> None:
    """As docs/access.md says."""
    run_psql(database, CHUNKS)
    apply_grants(database, app=APP)
    engine = create_engine(log_in(database, APP).libpq_url())

    def indexes() -> set[str]:
        with Session(engine) as session:
            return indexes_read(scans(session, hybrid_search(None, "late7")))

    bulk = BulkDocument("a", ["Cats"], [embed("Cats")], "1", "c1", "e1")
    try:
        assert "rag_chunks_current_words_idx" in indexes()
        superuser.execute("ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY")
        superuser.execute("CREATE POLICY theirs ON rag_chunks USING (text_config = 'simple')")
        assert "rag_chunks_current_words_idx" not in indexes()
        with (
            engine.connect() as connection,
            pytest.raises(
                psycopg.errors.FeatureNotSupported, match="COPY FROM not supported with row-level security"
            ),
        ):
            publish_many(connection, [bulk])
    finally:
        superuser.execute("DROP POLICY IF EXISTS theirs ON rag_chunks")
        superuser.execute("ALTER TABLE rag_chunks DISABLE ROW LEVEL SECURITY")
        engine.dispose()
