"""Our functions call PostgreSQL's own functions and operators, whatever others define in the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from uuid import UUID

import psycopg
import pytest

from conftest import connect, made_database, run_psql
from parse_trees import Catalogue, Seen, loose_calls, unseen, watch
from ragschema import migrations
from ragschema.database.settings import Database

FUNCTIONS = "SELECT proname::text, prosrc FROM pg_proc WHERE proname ~ '^rag_' AND prokind = 'f' ORDER BY 1"
BEFORE = "20261121150100"
"""The last revision whose functions could be answered by others."""

Connection = psycopg.Connection[psycopg.rows.TupleRow]


def attempt(connection: Connection, sql: str) -> list[psycopg.rows.TupleRow]:
    """Run a statement that may be refused: the server has read it by then."""
    try:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []
    except psycopg.Error:
        return []


def use_documents(connection: Connection) -> None:
    attempt(
        connection,
        "INSERT INTO rag_documents (id, article_id) VALUES (gen_random_uuid(), 'a') RETURNING id",
    )
    version = (
        "INSERT INTO rag_document_versions"
        " (document_id, version_number, source_hash, chunker_version, embedder_version)"
        " SELECT id, {}, 'h', 'c', 'e' FROM rag_documents RETURNING id"
    )
    [(first,)] = attempt(connection, version.format(1))
    [(second,)] = attempt(connection, version.format(2))
    chunk = "INSERT INTO rag_chunks (version_id, ordinal, content) VALUES ('{}', {}, 'text') RETURNING id"
    point = "UPDATE rag_documents SET current_version_id = '{}'"
    attempt(connection, point.format(first))
    chunks = [attempt(connection, chunk.format(first, place))[0][0] for place in range(3)]
    event = "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type) VALUES ('{}', '{}', {}, '{}')"
    attempt(connection, event.format(second, chunks[0], 0, "unchanged"))
    attempt(connection, event.format(second, chunks[1], 1, "deleted"))
    attempt(connection, point.format(second))
    attempt(connection, event.format(second, chunks[2], 2, "unchanged"))
    attempt(connection, "UPDATE rag_documents SET text_config = 'english'")
    attempt(connection, "UPDATE rag_document_versions SET source_hash = 'other'")
    attempt(connection, f"DELETE FROM rag_chunks WHERE id = '{chunks[1]}'")
    [(other,)] = attempt(
        connection,
        "WITH d AS (INSERT INTO rag_documents (article_id) VALUES ('b') RETURNING id)"
        " INSERT INTO rag_document_versions"
        " (document_id, version_number, source_hash, chunker_version, embedder_version)"
        " SELECT id, 1, 'h', 'c', 'e' FROM d RETURNING id",
    )
    attempt(connection, event.format(other, chunks[2], 0, "added"))
    attempt(connection, "UPDATE rag_chunk_events SET event_type = 'added' WHERE ordinal = 2")
    attempt(connection, f"UPDATE rag_chunk_events SET version_id = '{other}' WHERE ordinal = 2")
    attempt(connection, f"UPDATE rag_chunks SET version_id = '{second}'")
    attempt(connection, f"UPDATE rag_chunks SET version_id = '{other}'")
    attempt(connection, "DELETE FROM rag_chunk_events")
    attempt(connection, "SELECT rag_text_vector('english', 'text')")
    use_words(connection)


def use_words(connection: Connection) -> None:
    """With plain and long texts, capitals that LC_CTYPE does not know, and scripts without spaces."""
    texts = (
        "''", "'running GPT-4 E4711 1.2.3'", "'É İß 東京 ab'", "repeat('x', 300)",
        "repeat('running e4 ', 30000)",
    )  # fmt: skip
    for config in ("simple", "english"):
        for text in texts:
            attempt(connection, f"SELECT rag_words('{config}', {text}), rag_small_letters({text})")
            attempt(connection, f"SELECT * FROM rag_query_words('{config}', left({text}, 99), 32)")


def use_jobs(connection: Connection) -> None:
    attempt(connection, "SELECT rag_jobs_enqueue('one')")
    attempt(connection, "SELECT rag_jobs_enqueue('two', dedupe_key => 'key')")
    attempt(
        connection, "SELECT rag_jobs_enqueue_many('{one,two,two}', '{1,2,3}', dedupe_keys => '{NULL,a,a}')"
    )
    attempt(connection, "SET citus.version = 'any'")
    attempt(
        connection, "SELECT rag_jobs_enqueue_many('{one,two,two}', '{1,2,3}', dedupe_keys => '{NULL,b,b}')"
    )
    attempt(connection, "RESET citus.version")
    attempt(connection, "SELECT rag_jobs_enqueue(repeat('x', 3000))")
    attempt(connection, "SELECT * FROM rag_jobs_claim(NULL)")
    [(job, tries)] = attempt(connection, "SELECT id, attempts FROM rag_jobs_claim('w', '{one}')")
    attempt(connection, f"SELECT rag_jobs_heartbeat('{job}', {tries}, NULL)")
    attempt(connection, f"SELECT rag_jobs_heartbeat('{job}', {tries}, progress => '1')")
    attempt(connection, f"SELECT rag_jobs_fail('{job}', {tries}, repeat('x', 20000))")
    attempt(connection, f"SELECT rag_jobs_retry('{job}')")
    [(job, tries)] = attempt(
        connection, f"SELECT id, attempts FROM rag_jobs_claim('w', '{{one}}', 9) WHERE id = '{job}'"
    )
    attempt(connection, f"SELECT rag_jobs_fail('{job}', {tries}, 'no', permanent => true)")
    attempt(connection, f"SELECT rag_jobs_fail('{job}', {tries}, 'no longer')")
    attempt(connection, f"SELECT rag_jobs_retry('{job}')")
    attempt(connection, f"SELECT rag_jobs_retry('{UUID(int=0)}')")
    claimed = attempt(
        connection, "SELECT id, attempts, dedupe_key FROM rag_jobs_claim('w', '{one,two,none}', 3)"
    )
    claimed += attempt(connection, "SELECT id, attempts, dedupe_key FROM rag_jobs_claim('w', NULL, 9)")
    attempt(connection, "SELECT rag_jobs_enqueue('two', dedupe_key => 'key')")
    attempt(connection, "SELECT rag_jobs_enqueue('two', dedupe_key => 'a')")
    [again] = [row for row in claimed if row[2] == "key"]
    attempt(connection, f"SELECT rag_jobs_fail('{again[0]}', {again[1]}, 'no')")
    for identity, number, _ in claimed:
        attempt(connection, f"SELECT rag_jobs_complete('{identity}', {number})")
    attempt(connection, f"SELECT rag_jobs_retry('{again[0]}')")
    attempt(connection, f"SELECT rag_jobs_cancel('{again[0]}', 'why')")
    attempt(connection, "SELECT rag_jobs_enqueue('back')")
    [(job, tries)] = attempt(connection, "SELECT id, attempts FROM rag_jobs_claim('w', '{back}')")
    attempt(connection, f"SELECT rag_jobs_give_back('{job}', {tries})")
    attempt(connection, f"SELECT rag_jobs_give_back('{job}', {tries})")
    attempt(connection, "SELECT rag_jobs_enqueue('late')")
    attempt(connection, "SELECT * FROM rag_jobs_claim('w', '{late}', lease => '1 microsecond')")
    attempt(connection, "SELECT rag_jobs_release_expired()")
    for priority in (1, 2):
        later = f"run_at => now() + interval '1 day', priority => {priority}"
        attempt(connection, f"SELECT rag_jobs_enqueue('later', {later})")
    attempt(connection, "SELECT rag_jobs_enqueue('later', priority => 3)")
    attempt(connection, "SELECT * FROM rag_jobs_claim('w', '{later,none}')")
    attempt(connection, "SELECT * FROM rag_jobs_claim('w', '{later}')")
    attempt(connection, "SELECT * FROM rag_jobs_stats()")
    attempt(connection, "SELECT rag_jobs_prune('-1 hour', dry_run => true)")
    attempt(connection, "SELECT rag_jobs_prune('-1 hour')")


def use_jobs_by_hand(connection: Connection) -> None:
    attempt(connection, "INSERT INTO rag_jobs (job_type, payload) VALUES ('hand', '{}')")
    for status in (
        "processing",
        "new",
        "processing",
        "failed",
        "completed",
        "new",
        "processing",
        "completed",
        "new",
    ):
        attempt(connection, f"UPDATE rag_jobs SET status = '{status}'")
    attempt(
        connection, "INSERT INTO rag_jobs (job_type, payload, status) VALUES ('hand', '{}', 'processing')"
    )
    attempt(
        connection,
        "UPDATE rag_jobs SET status = 'new', attempts_before = 0, max_attempts = 1 WHERE status = 'processing'",
    )
    attempt(connection, "UPDATE rag_jobs SET attempts = -1, finished_at = NULL")
    attempt(
        connection,
        "INSERT INTO rag_jobs (job_type, payload, status, enqueued_again) VALUES ('hand', '{}', 'processing', true)",
    )
    attempt(connection, "UPDATE rag_jobs SET status = 'new' WHERE enqueued_again")
    attempt(
        connection,
        "INSERT INTO rag_jobs (job_type, payload, status, enqueued_again) VALUES ('hand', '{}', 'failed', true)",
    )


def use_models(connection: Connection) -> None:
    searched = "SELECT rag_embedding_model({}, {}, 'cosine', 'halfvec')"
    attempt(connection, searched.format("NULL", 768))
    attempt(connection, searched.format("NULL", 3))
    attempt(connection, searched.format("'a'", 3))
    models = "('a', 3, 'active', 'halfvec'), ('b', 3, 'standby', 'bit'), ('c', 4, 'retired', 'none')"
    attempt(
        connection, f"INSERT INTO rag_embedding_models (key, dimensions, state, index_type) VALUES {models}"
    )
    for wanted, dims in (
        ("NULL", 3),
        ("NULL", 5),
        ("'a'", 3),
        ("'a'", 4),
        ("'b'", 3),
        ("'c'", 4),
        ("'d'", 4),
    ):
        attempt(connection, searched.format(wanted, dims))
    attempt(connection, "SELECT rag_embedding_model('a', 3, 'cosine', 'halfvec', 99)")


def use_graph(connection: Connection) -> None:
    """Two documents of two chunks, which mention three entities and a relation; merged, undone and forgotten."""
    for name in ("g", "h"):
        attempt(
            connection,
            f"WITH d AS (INSERT INTO rag_documents (article_id) VALUES ('{name}') RETURNING id)"
            " INSERT INTO rag_document_versions"
            " (document_id, version_number, source_hash, chunker_version, embedder_version)"
            " SELECT id, 1, 'h', 'c', 'e' FROM d",
        )
    chunks = attempt(
        connection,
        "INSERT INTO rag_chunks (version_id, ordinal, content) SELECT v.id, n, 'text'"
        " FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id, generate_series(5, 6) n"
        " WHERE d.article_id IN ('g', 'h') RETURNING id",
    )
    one, two, three, four = (row[0] for row in chunks)
    entity = "INSERT INTO rag_entities (entity_type, name) VALUES ('t', '{}') RETURNING id"
    ada, bob, cy = (attempt(connection, entity.format(name))[0][0] for name in ("Ada", "BOB É", "Cy"))
    [(relation,)] = attempt(
        connection,
        "INSERT INTO rag_relations (source_id, relation_type, target_id)"
        f" VALUES ('{ada}', 'knows', '{bob}') RETURNING id",
    )
    attempt(connection, f"SELECT rag_mention_facts('{one}', '{{{ada},{bob}}}', '{{{relation}}}')")
    attempt(connection, f"INSERT INTO rag_entity_mentions VALUES ('{two}', '{cy}')")
    attempt(connection, f"INSERT INTO rag_relation_mentions VALUES ('{two}', '{relation}')")
    attempt(connection, f"INSERT INTO rag_extractions VALUES ('{two}', 'x')")
    attempt(connection, f"UPDATE rag_chunks SET is_current = true WHERE id = '{two}'")
    attempt(connection, f"SELECT rag_settle_facts('{{}}', '{{{three}}}', '{{{two}}}')")
    for table in ("rag_entity_mentions", "rag_relation_mentions"):
        attempt(connection, f"UPDATE {table} SET chunk_id = '{four}' WHERE chunk_id = '{three}'")
    attempt(connection, f"SELECT rag_merge_entity('{cy}', '{ada}')")
    attempt(connection, f"SELECT rag_undo_merge('{ada}')")
    attempt(connection, "SELECT rag_forget_facts('{}')")
    attempt(connection, f"SELECT rag_forget_facts('{{{one},{two}}}')")


def use_everything(connection: Connection) -> None:
    """Run every statement of every function of ours."""
    use_documents(connection)
    use_graph(connection)
    use_jobs(connection)
    use_jobs_by_hand(connection)
    use_models(connection)


@pytest.fixture(scope="module")
def watched(
    server: Mapping[str, str], template: str
) -> Iterator[tuple[list[Seen], Catalogue, dict[str, str]]]:
    with made_database(server, template) as database, connect(database) as connection:
        seen = watch(connection)
        use_everything(connection)
        connection.execute("RESET debug_print_parse")
        yield seen, Catalogue.read(connection), dict(connection.execute(FUNCTIONS).fetchall())


def test_every_expression_of_every_function_was_read(
    watched: tuple[list[Seen], Catalogue, dict[str, str]],
) -> None:
    """What is left of the bodies holds nothing that a name could lead astray."""
    seen, _, bodies = watched
    for name, body in bodies.items():
        left = unseen(body, [each.text for each in seen if each.function == name])
        assert not re.search(r"\w\s*\(|[=<>|+*/^~!@%&-]", left), f"{name}: {left}"


def test_no_call_can_be_answered_by_another_function(
    watched: tuple[list[Seen], Catalogue, dict[str, str]],
) -> None:
    seen, catalogue, _ = watched
    assert sorted({call for each in seen for call in loose_calls(each, catalogue)}) == []


DECOYS = """
CREATE SEQUENCE {schema}.decoys;
GRANT USAGE ON SEQUENCE {schema}.decoys TO PUBLIC;
SET ROLE {role};
CREATE FUNCTION {schema}.format(text, integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN current_user; END $$;
CREATE FUNCTION {schema}.format(text, integer, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN current_user; END $$;
CREATE FUNCTION {schema}.format(text, uuid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN current_user; END $$;
CREATE FUNCTION {schema}.cardinality(text[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN array_length($1, 1); END $$;
CREATE FUNCTION {schema}.cardinality(uuid[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN array_length($1, 1); END $$;
CREATE FUNCTION {schema}.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN QUERY SELECT pg_catalog.unnest($1); END $$;
CREATE FUNCTION {schema}.step(text[], text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN $1 || $2; END $$;
CREATE AGGREGATE {schema}.array_agg(text) (SFUNC = {schema}.step, STYPE = text[], INITCOND = '{{}}');
CREATE FUNCTION {schema}.is_equal({schema}.job_status, {schema}.job_status) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN $1::text = $2::text; END $$;
CREATE OPERATOR {schema}.= (
  FUNCTION = {schema}.is_equal, LEFTARG = {schema}.job_status, RIGHTARG = {schema}.job_status
);
CREATE FUNCTION {schema}.glue(text, integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN $1 || $2::text; END $$;
CREATE OPERATOR {schema}.|| (FUNCTION = {schema}.glue, LEFTARG = text, RIGHTARG = integer);
CREATE FUNCTION {schema}.glue(name, name) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM nextval('{schema}.decoys'); RETURN $1::text || $2::text; END $$;
CREATE OPERATOR {schema}.|| (FUNCTION = {schema}.glue, LEFTARG = name, RIGHTARG = name);
RESET ROLE;
"""


@pytest.mark.parametrize(("revision", "is_fooled"), [(BEFORE, True), ("head", False)])
def test_a_role_that_may_create_in_the_schema_is_not_called_by_our_functions(
    empty_database: Database, revision: str, is_fooled: bool
) -> None:
    """What it defines fits better than PostgreSQL's own, and would run as whoever works the queue."""
    migrations.upgrade(empty_database, revision)
    role = f"intruder_{empty_database.parameters['dbname']}"
    with connect(empty_database) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        try:
            connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {role}".encode())
            run_psql(empty_database, DECOYS.format(schema="public", role=role))
            connection.execute("SELECT rag_job_error(repeat('x', 20000)), rag_jobs_enqueue('a')")
            if not is_fooled:  # fooled functions do not even work
                use_documents(connection)
                use_graph(connection)
                use_jobs(connection)
            called = connection.execute("SELECT is_called FROM decoys").fetchone()
        finally:
            connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
            connection.execute(f"DROP ROLE {role}".encode())
    assert called == (is_fooled,)
