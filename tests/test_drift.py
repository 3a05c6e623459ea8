"""Drift: what differs from a revision is found and named, on every server version there is a wheel of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

import servers
from conftest import DatabaseAt, connect, made_database, run_psql
from drifts import DRIFTS, FIXTURE_DRIFTS, FIXTURES, SEARCH_PATH
from ragschema import migrations
from ragschema.database.server import Connection
from ragschema.database.settings import Database
from ragschema.errors import RagSchemaError, UsageError
from ragschema.migrations.request import Applied
from ragschema.state import expected as expected_catalogues
from ragschema.state.catalogue import Catalogue, read_catalogue
from ragschema.state.comparison import Difference, Drift, compare, find_fitting, nearest
from ragschema.state.drift import find_drift, nearest_revision
from ragschema.state.expected import COMMAND, expected, read_changes, read_fingerprints

BASE, HEAD = next(iter(read_fingerprints())), list(read_fingerprints())[-1]

SEED_SCHEMA = Path(__file__).with_name("seed_schema")

EMBEDDED = "PostgreSQL 18.6, pgvector 0.8.6"
SERVERS = [pytest.param(None, id=EMBEDDED), *servers.server_parameters()]


@pytest.fixture(scope="session", params=SERVERS)
def anywhere(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database at head on each server; tests roll back what they do to it."""
    if request.param is None:
        yield request.getfixturevalue("head_database")
        return
    with servers.at_head(request.param) as database:
        yield database


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with psycopg.connect(database.libpq_url()) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def connection(anywhere: Database) -> Iterator[Connection]:
    """A transaction on a database at head, on each server."""
    with transaction(anywhere) as connection:
        yield connection


@pytest.fixture(scope="session")
def head_database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    with made_database(server, template) as database:
        yield database


@pytest.fixture
def head(head_database: Database) -> Iterator[Connection]:
    """A transaction on a database at head, on the embedded server."""
    with transaction(head_database) as connection:
        yield connection


def run_script(connection: Connection, script: str) -> None:
    connection.execute(script.encode())  # several statements at once: no parameters


def found(drift: Drift) -> dict[str, str | None]:
    return {difference.object: difference.found for difference in (*drift.differences, *drift.misplaced)}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_manual_drift_is_found_and_named(connection: Connection, name: str) -> None:
    script, objects = DRIFTS[name]
    run_script(connection, script)
    drift = find_drift(connection, "public", HEAD)
    assert found(drift) == objects
    assert not drift.is_clean
    assert {d.object: d.expected for d in drift.differences} == {
        o: expected(HEAD).get(o) for o in objects if o not in {d.object for d in drift.misplaced}
    }
    assert {d.expected for d in drift.misplaced} <= {SEARCH_PATH}
    assert drift.count == len(objects)


@pytest.mark.parametrize("name", FIXTURE_DRIFTS)
def test_a_drift_of_what_no_revision_has_yet_is_found_and_named(connection: Connection, name: str) -> None:
    script, named = FIXTURE_DRIFTS[name]
    run_script(connection, FIXTURES)
    made = {"1": read_catalogue(connection, "public")}
    run_script(connection, script)
    drift = compare(read_catalogue(connection, "public"), "1", made)
    assert list(found(drift)) == [named]
    [difference] = (*drift.differences, *drift.misplaced)
    assert str(difference.expected) in made["1"][named]


def test_a_clean_database_has_no_drift(connection: Connection) -> None:
    assert find_drift(connection, "public", HEAD) == Drift(HEAD)


@pytest.fixture(scope="session")
def reference_database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """A database at head on the embedded server, with what no revision has yet."""
    with made_database(server, template) as database:
        run_psql(database, f"SET search_path TO public; {FIXTURES}")
        yield database


@pytest.fixture(scope="session")
def reference(reference_database: Database) -> Catalogue:
    """The catalogue of that database."""
    with connect(reference_database) as connection:
        return read_catalogue(connection, "public")


@pytest.mark.parametrize(
    ("schema", "extension"), [("t2", "public"), ("public", "types"), ('Our "rag"', "types")]
)
def test_the_catalogue_is_the_same_on_every_server_in_every_schema(
    anywhere: Database, reference: Catalogue, schema: str, extension: str
) -> None:
    path = sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys((schema, extension))))
    with made_database(anywhere.parameters) as database:
        with connect(database) as connection:
            for name in {schema, extension} - {"public"}:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("CREATE EXTENSION vector WITH SCHEMA {}").format(sql.Identifier(extension))
            )
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET search_path TO {}").format(
                    sql.Identifier(database.parameters["dbname"]), path
                )
            )
        run_psql(database, migrations.upgrade_sql())
        with connect(database) as connection:
            assert find_drift(connection, schema, HEAD) == Drift(HEAD)
        run_psql(database, FIXTURES)
        with connect(database) as connection:
            assert read_catalogue(connection, schema) == reference


def test_two_schemas_of_a_database_are_apart(head: Connection) -> None:
    run_script(head, "CREATE SCHEMA t2; CREATE TABLE t2.rag_jobs (id integer)")
    assert find_drift(head, "public", HEAD) == Drift(HEAD)
    assert found(find_drift(head, "t2", HEAD))["column rag_jobs.id"] == "integer"


def test_an_empty_schema_misses_every_table_and_says_so_once(head: Connection) -> None:
    run_script(head, "CREATE SCHEMA t2")
    missing = found(find_drift(head, "t2", HEAD))
    assert set(missing) == {
        name for name in expected(HEAD) if name.startswith(("table ", "type ", "function "))
    }
    assert found(find_drift(head, "nowhere", HEAD)) == missing


def test_functions_lose_only_the_schemas_of_what_is_ours(head: Connection) -> None:
    body = "SELECT 1 FROM {0}rag_jobs j, other.rag_jobs, {0}rag_chunks WHERE public.f() = j.id"
    run_script(
        head, "SET check_function_bodies = off; CREATE SCHEMA t2; CREATE TYPE t2.job_status AS ENUM ()"
    )
    for schema in ("public", "t2"):
        run_script(
            head,
            f"CREATE FUNCTION {schema}.rag_f(x {schema}.job_status) RETURNS integer LANGUAGE sql"
            f" SET search_path = {schema}, other, public AS $$ {body.format(schema + '.')} $$",
        )
    name = "function rag_f(x job_status)"
    definition = read_catalogue(head, "t2")[name]
    assert body.format("") in definition
    assert " SET search_path TO $schema, other, $extension\n" in definition
    assert read_catalogue(head, "public")[name] == definition.replace(
        "other, $extension", "$extension, other"
    )


NOTES = {
    "index": ("CREATE INDEX mine ON rag_chunks (ordinal)", "index rag_chunks.mine"),
    "unique index": ("CREATE UNIQUE INDEX mine ON rag_chunks (content)", "index rag_chunks.mine"),
    "second HNSW index": (
        "CREATE INDEX mine ON rag_chunks USING hnsw (embedding vector_l2_ops)",
        "index rag_chunks.mine",
    ),
    "invalid index": (
        "CREATE INDEX mine ON rag_chunks (ordinal);"
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mine'::regclass",
        "index rag_chunks.mine",
    ),
    "trigger": (
        "CREATE TRIGGER mine BEFORE UPDATE ON rag_chunks FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger rag_chunks.mine",
    ),
    "nullable column": ("ALTER TABLE rag_jobs ADD owner text", "column rag_jobs.owner"),
    "column with a default": (
        "ALTER TABLE rag_jobs ADD owner text NOT NULL DEFAULT ''",
        "column rag_jobs.owner",
    ),
    "generated column": (
        "ALTER TABLE rag_jobs ADD n bigint NOT NULL GENERATED ALWAYS AS IDENTITY",
        "column rag_jobs.n",
    ),
    "row security": ("ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY", "row-security rag_chunks"),
    "policy": ("CREATE POLICY mine ON rag_chunks FOR SELECT USING (true)", "policy rag_chunks.mine"),
    "comment": ("COMMENT ON COLUMN rag_chunks.content IS 'text'", "comment rag_chunks.content"),
    "autovacuum": (
        "ALTER TABLE rag_chunks SET (autovacuum_analyze_scale_factor = 0.01)",
        "parameter rag_chunks.autovacuum_analyze_scale_factor",
    ),
    "autovacuum of the TOAST table": (
        "ALTER TABLE rag_chunks SET (toast.autovacuum_enabled = off)",
        "parameter rag_chunks.toast.autovacuum_enabled",
    ),
}


@pytest.mark.parametrize("name", NOTES)
def test_an_addition_that_refuses_nothing_is_a_note(head: Connection, name: str) -> None:
    script, named = NOTES[name]
    run_script(head, script)
    drift = find_drift(head, "public", HEAD)
    assert drift.is_clean
    assert [(note.object, note.expected) for note in drift.notes] == [(named, None)]
    assert ("INVALID" in str(drift.notes[0].found)) == (name == "invalid index")


@pytest.mark.parametrize(("change", "found"), [("SET ({} = 0.01)", "0.01"), ("RESET ({})", None)])
def test_what_an_operator_changes_of_autovacuum_is_a_note(
    head: Connection, change: str, found: str | None
) -> None:
    name = "autovacuum_vacuum_scale_factor"
    run_script(head, f"ALTER TABLE rag_chunks {change.format(name)}")
    drift = find_drift(head, "public", HEAD)
    assert drift.is_clean
    assert drift.notes == (Difference(f"parameter rag_chunks.{name}", "0.1", found),)


def test_autovacuum_may_be_set_before_a_revision_sets_it(database_at: DatabaseAt) -> None:
    base = database_at(BASE)
    run_psql(base, "ALTER TABLE rag_chunks SET (autovacuum_vacuum_scale_factor = 0.01)")
    with connect(base) as connection:
        drift = nearest_revision(connection, "public")
    assert (drift.revision, drift.is_clean, len(drift.notes)) == (BASE, True, 1)


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE rag_mine (id integer PRIMARY KEY, chunk_id uuid REFERENCES rag_chunks); "
        "CREATE INDEX ON rag_mine (chunk_id); ALTER TABLE rag_mine ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE alembic_version (version_num text); CREATE TABLE atlas_schema_revisions (version text)",
        "CREATE VIEW rag_view AS SELECT id FROM rag_chunks; CREATE VIEW jobs AS SELECT * FROM rag_jobs",
        "CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN job AS text; CREATE SEQUENCE rag_numbers",
        "CREATE FUNCTION rag_mine() RETURNS integer LANGUAGE sql AS 'SELECT 1';"
        "CREATE AGGREGATE rag_sum (integer) (SFUNC = int4pl, STYPE = integer)",
        "CREATE SCHEMA other; CREATE TABLE other.rag_chunks (id integer)",
        "ALTER TABLE rag_alembic_version ADD mine text; GRANT SELECT ON rag_chunks TO PUBLIC;"
        "CREATE ROLE keeper; ALTER TABLE rag_chunks OWNER TO keeper",
        "ALTER TABLE rag_document_versions DROP title; ALTER TABLE rag_document_versions ADD title text",
    ],
)
def test_what_is_not_ours_is_not_mentioned(head: Connection, script: str) -> None:
    run_script(head, script)
    assert find_drift(head, "public", HEAD) == Drift(HEAD)


def test_only_18_has_constraints_not_null_and_not_enforced(head: Connection) -> None:
    run_script(
        head,
        "ALTER TABLE rag_chunks ADD CONSTRAINT named NOT NULL embedding NOT VALID;"
        "ALTER TABLE rag_documents DROP CONSTRAINT fk_current_version, ADD CONSTRAINT fk_current_version"
        " FOREIGN KEY (current_version_id) REFERENCES rag_document_versions NOT ENFORCED",
    )
    assert found(find_drift(head, "public", HEAD)) == {
        "column rag_chunks.embedding": "vector(768) NOT NULL NOT VALID",
        "constraint rag_documents.fk_current_version": "FOREIGN KEY (current_version_id)"
        " REFERENCES rag_document_versions(id) NOT ENFORCED",
    }


def test_the_role_may_keep_pgvector_in_a_schema_of_its_search_path(anywhere: Database) -> None:
    with made_database(anywhere.parameters) as database:
        with connect(database) as connection:
            connection.execute("CREATE SCHEMA extensions")
            connection.execute("CREATE EXTENSION vector SCHEMA extensions")
        own = Database({**database.parameters, "options": "-csearch_path=public,extensions"}, "the tests")
        run_psql(own, migrations.upgrade_sql())
        with connect(own) as connection:
            connection.execute("SET search_path TO public")  # what counts is what the connection started with
            assert find_drift(connection, "public", HEAD) == Drift(HEAD)
        with connect(database) as connection:
            connection.execute("SET search_path TO public, extensions")
            drift = find_drift(connection, "public", HEAD)
            assert drift.is_clean
            assert [(note.object, note.found) for note in drift.notes] == [
                (
                    "extension vector",
                    'installed in schema extensions, off the search_path "$user", public',
                )
            ]


SETTINGS = {
    "search_path": "",
    "quote_all_identifiers": "on",
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Tokyo",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
}


@pytest.mark.parametrize("autocommit", [True, False])
def test_reading_neither_obeys_nor_changes_the_settings_of_the_session(
    reference_database: Database, reference: Catalogue, autocommit: bool
) -> None:
    with connect(reference_database) as connection:
        connection.autocommit = autocommit
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        before = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in SETTINGS]
        connection.row_factory = dict_row  # type: ignore[assignment]
        assert read_catalogue(connection, "public") == reference
        connection.row_factory = tuple_row
        after = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in SETTINGS]
        assert after == before


def test_a_role_that_may_only_read_sees_the_same(connection: Connection) -> None:
    """Even one that may not enter pgvector's schema, where its types are printed with the schema."""
    run_script(
        connection,
        "ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY; ALTER TABLE rag_chunks ALTER id DROP DEFAULT;"
        "CREATE INDEX mine ON rag_chunks USING hnsw ((embedding::real[]::vector(768)) vector_l2_ops);"
        "CREATE SCHEMA types; ALTER EXTENSION vector SET SCHEMA types;"
        "CREATE ROLE reader; SET ROLE reader; SET transaction_read_only = on",
    )
    drift = find_drift(connection, "public", HEAD)
    functions = {name for name in expected(HEAD) if name.startswith("function ")}  # whose path names public
    assert set(found(drift)) == {
        *("column rag_chunks.id", "row-security rag_chunks"),
        *functions,
    }
    assert [note.object for note in drift.notes] == ["extension vector", "index rag_chunks.mine"]
    assert drift.notes[1].found == (
        "CREATE INDEX mine ON rag_chunks USING hnsw ((embedding::real[]::vector(768)) vector_l2_ops)"
    )


def test_what_a_later_revision_makes_is_drift_but_for_an_index() -> None:
    first = {"table rag_a": "table", "column rag_a.id": "uuid"}
    second = first | {
        "column rag_a.b": "text",
        "index rag_a.rag_a_b_idx": "CREATE INDEX rag_a_b_idx ON rag_a USING btree (b)",
        "table rag_b": "table",
        "column rag_b.id": "uuid",
        "type mood": "enum ('good')",
    }
    drift = compare(second | {"column rag_a.c": "text"}, "1", {"1": first, "2": second})
    assert list(found(drift)) == ["column rag_a.b", "table rag_b", "type mood"]
    assert [note.object for note in drift.notes] == ["column rag_a.c", "index rag_a.rag_a_b_idx"]


def alike(revision: str) -> list[str]:
    """The revisions with the same catalogue, oldest first."""
    return [other for other in read_fingerprints() if expected(other) == expected(revision)]


def fitting(revision: str) -> list[str]:
    """The revisions that a database at this one fits: with the same catalogue, but for indexes they lack."""
    here = expected(revision)
    return [
        other
        for other in read_fingerprints()
        if expected(other).items() <= here.items()
        and all(name.startswith("index ") for name in here.keys() - expected(other).keys())
    ]


@pytest.mark.long
def test_a_database_fits_the_revision_it_is_at_and_no_unlike_one(empty_database: Database) -> None:
    """Notes do not change that, and neither does one drift: at each revision on the way up."""
    seen = []

    def look(applied: Applied) -> None:
        revision = applied.revision
        with connect(empty_database) as connection, connection.transaction(force_rollback=True):
            catalogue = read_catalogue(connection, "public")
            drift = nearest_revision(connection, "public")
            assert (drift.revision, drift.differences, drift.notes) == (alike(revision)[0], (), ())
            assert find_fitting(catalogue) == fitting(revision)
            run_script(connection, "ALTER TABLE rag_jobs ADD mine text; CREATE INDEX mine ON rag_jobs (mine)")
            drift = nearest_revision(connection, "public")
            assert (drift.revision, drift.is_clean, len(drift.notes)) == (alike(revision)[0], True, 2)
            connection.execute("ALTER TABLE rag_jobs DROP CONSTRAINT rag_jobs_pkey")
            drift = nearest_revision(connection, "public")
            assert drift.revision == alike(revision)[0]
            assert found(drift) == {"constraint rag_jobs.rag_jobs_pkey": None}
        seen.append(revision)

    migrations.upgrade(empty_database, report=look, replay=True)
    assert seen == [*read_fingerprints()]


def test_offline_sql_makes_each_revision_too(empty_database: Database) -> None:
    before = "base"
    with connect(empty_database) as connection:
        for revision in read_fingerprints():
            run_psql(empty_database, migrations.upgrade_sql(revision, start=before))
            assert find_drift(connection, "public", revision) == Drift(revision)
            before = revision


def test_a_revision_that_fits_is_nearer_than_one_with_more_in_common() -> None:
    """Two indexes of the next revision were made by hand, its column was not: the next has one difference."""
    first = {"table rag_a": "table"}
    indexes = {f"index rag_a.{name}": f"CREATE INDEX {name} ON rag_a USING btree (id)" for name in "bc"}
    drift = nearest(first | indexes, {"1": first, "2": first | indexes | {"column rag_a.d": "text"}})
    assert (drift.revision, drift.is_clean, len(drift.notes)) == ("1", True, 2)


UUID_DEFAULTS = """
CREATE SCHEMA types; CREATE FUNCTION types.uuid_generate_v4() RETURNS uuid LANGUAGE sql
    AS 'SELECT gen_random_uuid()';
ALTER TABLE rag_chunks ALTER id SET DEFAULT types.uuid_generate_v4();
"""


def test_defaults_that_a_later_revision_repairs_do_not_stop_adoption(
    database_at: DatabaseAt,
) -> None:
    base = database_at(BASE)
    run_psql(base, UUID_DEFAULTS)
    with connect(base) as connection:
        nearest = nearest_revision(connection, "public")
        assert nearest == find_drift(connection, "public", BASE)
        catalogue = read_catalogue(connection, "public") | {"extension uuid-ossp": "installed"}
    assert (nearest.revision, nearest.differences, nearest.notes) == (BASE, (), ())
    [repaired] = nearest.repaired_later
    assert (repaired.object, repaired.found) == (
        "column rag_chunks.id",
        "uuid NOT NULL DEFAULT types.uuid_generate_v4()",
    )
    drift = compare(catalogue, BASE)
    assert [difference.object for difference in drift.repaired_later] == [
        "column rag_chunks.id",
        "extension uuid-ossp",
    ]


def test_defaults_that_no_later_revision_repairs_are_drift(head: Connection) -> None:
    run_script(head, UUID_DEFAULTS)
    assert found(find_drift(head, "public", HEAD)) == {
        "column rag_chunks.id": "uuid NOT NULL DEFAULT types.uuid_generate_v4()"
    }
    assert (
        compare(read_catalogue(head, "public") | {"extension uuid-ossp": "installed"}, HEAD).repaired_later
        == ()
    )


def test_the_hand_written_schema_is_adopted_at_head(empty_database: Database) -> None:
    script = "".join(path.read_text() for path in sorted(SEED_SCHEMA.glob("*.sql")))
    assert script.count('CREATE EXTENSION IF NOT EXISTS "uuid-ossp"') == 1
    script = script.replace(  # no wheel has that extension; what it is used for is one function
        'CREATE EXTENSION IF NOT EXISTS "uuid-ossp"',
        "CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
    )
    run_psql(empty_database, script)
    with connect(empty_database) as connection:
        nearest = nearest_revision(connection, "public")
    assert (nearest.revision, nearest.differences, nearest.notes) == ("20251225170000", (), ())
    assert [repaired.object for repaired in nearest.repaired_later] == [
        f"column {table}.id"
        for table in ("rag_chunk_events", "rag_chunks", "rag_document_versions", "rag_documents", "rag_jobs")
    ]


def test_a_difference_says_what_was_expected_and_what_was_found(head: Connection) -> None:
    run_script(
        head,
        "DROP TABLE rag_chunk_events; ALTER TABLE rag_chunks ALTER content DROP NOT NULL, ADD x int NOT NULL",
    )
    assert [str(difference) for difference in find_drift(head, "public", HEAD).differences] == [
        "column rag_chunks.content differs\n  expected: text NOT NULL\n  found:    text",
        "column rag_chunks.x is not expected: integer NOT NULL",
        "table rag_chunk_events is missing; expected: table",
    ]


def test_a_revision_without_a_fingerprint_is_refused_with_the_command_that_makes_it(head: Connection) -> None:
    with pytest.raises(UsageError, match=COMMAND):
        find_drift(head, "public", "19990101000000")


def test_unreadable_fingerprints_are_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fingerprints.json").write_text("{")
    monkeypatch.setattr(expected_catalogues, "script_location", lambda: tmp_path)
    with pytest.raises(RagSchemaError, match="Install ragschema again"):
        read_changes.__wrapped__()


def test_finding_drift_imports_neither_sqlalchemy_nor_alembic() -> None:
    code = (
        "import sys, ragschema.state.drift\n"
        "print(sorted({'alembic', 'numpy', 'sqlalchemy', 'typer'} & {*sys.modules}))"
    )
    output = subprocess.check_output([sys.executable, "-I", "-c", code], text=True)
    assert output == "[]\n"
