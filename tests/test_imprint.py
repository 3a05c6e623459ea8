"""Imprints: schemas that look alike by the rows of the catalogue are printed once, and no drift hides behind that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import psycopg
import pytest
from psycopg import sql

import servers
from conftest import made_database
from drifts import DRIFTS, FIXTURE_DRIFTS, FIXTURES
from ragschema import tenants
from ragschema.database.prepared import keep_prepared
from ragschema.database.server import Connection
from ragschema.database.settings import Database
from ragschema.revisions.manifest import read_manifest
from ragschema.state import catalogue, drift
from ragschema.state.drift import find_drift
from ragschema.state.imprint import take_imprint

HEAD = read_manifest().head
NAMES = ("acme", 'Globex & "Sons"', "search_path")
ADDITIONS = {
    "index": "CREATE INDEX added ON rag_jobs (created_at)",
    "column": "ALTER TABLE rag_jobs ADD COLUMN added text",
    "comment": "COMMENT ON COLUMN rag_jobs.payload IS 'added'",
    "trigger": "CREATE TRIGGER added BEFORE UPDATE ON rag_jobs FOR EACH ROW EXECUTE FUNCTION rag_touch_updated_at()",
    "row security": "ALTER TABLE rag_jobs ENABLE ROW LEVEL SECURITY",
    "setting of autovacuum": "ALTER TABLE rag_jobs SET (toast.autovacuum_vacuum_scale_factor = 0.01)",
    "partition": "CREATE TABLE rag_chunk_embeddings_9 PARTITION OF rag_chunk_embeddings FOR VALUES IN (9)",
    "label's name": "ALTER TYPE job_status RENAME VALUE 'new' TO 'fresh'",
    "options of an index's column": "CREATE INDEX added ON rag_jobs USING gist (to_tsvector('simple', job_type)"
    " tsvector_ops (siglen = 100))",
}


@pytest.fixture(scope="module", params=[pytest.param(None, id="embedded"), *servers.server_parameters()])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database at head on each server; tests roll back what they do to it."""
    if request.param is None:
        server: Mapping[str, str] = request.getfixturevalue("server")
        with made_database(server, request.getfixturevalue("template")) as database:
            yield database
        return
    with servers.at_head(request.param) as database:
        yield database


@pytest.fixture
def connection(anywhere: Database) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with psycopg.connect(anywhere.libpq_url()) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("script", [each for each, _ in DRIFTS.values()], ids=[*DRIFTS])
def test_what_printing_finds_is_found_after_a_schema_without_drift_was_seen(
    connection: Connection, script: str
) -> None:
    connection.execute(script.encode())
    printed = find_drift(connection, "public", HEAD)
    assert not printed.is_clean
    connection.rollback()
    keep_prepared(connection)
    assert find_drift(connection, "public", HEAD).is_clean
    connection.execute(script.encode())
    assert find_drift(connection, "public", HEAD) == printed
    assert find_drift(connection, "public", HEAD) == printed


@pytest.mark.parametrize("script", ADDITIONS.values(), ids=[*ADDITIONS])
def test_what_is_added_changes_the_imprint(connection: Connection, script: str) -> None:
    keep_prepared(connection)
    before = take_imprint(connection, "public")
    connection.execute(script.encode())
    after = take_imprint(connection, "public")
    assert before is not None
    assert after is not None
    assert before.key != after.key


@pytest.mark.parametrize("script", [each for each, _ in FIXTURE_DRIFTS.values()], ids=[*FIXTURE_DRIFTS])
def test_a_drift_of_what_no_revision_has_yet_changes_the_imprint(connection: Connection, script: str) -> None:
    keep_prepared(connection)
    connection.execute(FIXTURES.encode())
    before = take_imprint(connection, "public")
    connection.execute(script.encode())
    after = take_imprint(connection, "public")
    assert before is not None
    assert after is not None
    assert before.key != after.key


@pytest.fixture
def fleet(database: Database) -> Database:
    """A database with three tenants."""
    for name in NAMES:
        tenants.create_tenant(name, database)
    return database


def test_tenants_that_are_alike_are_printed_once(fleet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = []

    def read(connection: Connection, schema: str) -> dict[str, str]:
        printed.append(schema)
        return catalogue.read_catalogue(connection, schema)

    monkeypatch.setattr(drift, "read_catalogue", read)
    with psycopg.connect(fleet.libpq_url(), autocommit=True) as connection:
        keep_prepared(connection)
        assert [find_drift(connection, name, HEAD).is_clean for name in NAMES] == [True] * 3
        assert printed == [NAMES[0]]
        path = sql.SQL("ALTER FUNCTION {}.rag_touch_updated_at() SET search_path = {}, public, pg_temp")
        connection.execute(path.format(sql.Identifier(NAMES[1]), sql.Identifier(NAMES[0])))
        found = find_drift(connection, NAMES[1], HEAD)
        assert [each.object for each in found.misplaced] == ["function rag_touch_updated_at()"]
        connection.execute(path.format(sql.Identifier(NAMES[1]), sql.Identifier(NAMES[1])))
        assert find_drift(connection, NAMES[1], HEAD).is_clean
        assert printed == [*NAMES[:2]]


def test_an_ordinary_schema_is_told_from_one_to_be_looked_at_closely(fleet: Database) -> None:
    acme = sql.Identifier(NAMES[0]).as_string()
    closely = {
        "a function of others": f"CREATE FUNCTION {acme}.lower(uuid) RETURNS text LANGUAGE sql RETURN 'a'",
        "an operator": f"CREATE OPERATOR {acme}.+ (RIGHTARG = uuid, FUNCTION = uuid_send)",
        "row security": f"ALTER TABLE {acme}.rag_jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "another's table": f"ALTER TABLE {acme}.rag_jobs OWNER TO pg_monitor",
        "deletions that are not counted": "SET LOCAL track_counts = off",
        "a session that only reads": "SET LOCAL default_transaction_read_only = on",
    }
    with psycopg.connect(fleet.libpq_url()) as connection:
        keep_prepared(connection)
        assert is_ordinary(connection)
        connection.rollback()
        for script in closely.values():
            role = "CREATE ROLE looker; GRANT ALL ON SCHEMA acme TO looker; SET LOCAL ROLE looker"
            connection.execute(script.encode())
            if "TABLE" in script:  # a superuser sees and may do everything
                connection.execute(role.encode())
            assert not is_ordinary(connection), script
            connection.rollback()


def is_ordinary(connection: Connection) -> bool:
    """Whether the first tenant is."""
    imprint = take_imprint(connection, NAMES[0])
    assert imprint is not None
    return imprint.is_ordinary
