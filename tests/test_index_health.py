"""Vector indexes: what is measured of them is what searches find, and a poor one is made good."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import TupleRow

from checkouts import in_the_way, wait_for_build
from conftest import Command, connect, made_database
from embedding_models import DIMENSIONS, do_jobs, write_chunks
from ragschema import create_engine, index_health
from ragschema.database.connections import opened
from ragschema.database.options import find_options
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model, enqueue_backfill, index_model
from ragschema.errors import RagSchemaError, UsageError
from ragschema.index_health import recall
from ragschema.index_health.catalogue import HnswIndex, find_hnsw_indexes
from ragschema.index_health.disk import find_room, needed_room, refuse_without_room
from ragschema.index_health.questions import draw_questions

COLUMN, HALF, BITS, FAR = (
    "rag_chunks_current_embedding_idx",
    "vectors_7_half_idx",
    "vectors_7_bits_idx",
    "vectors_7_far_idx",
)
POOR = "(m = 2, ef_construction = 4)"

# A table of ours with a partition whose name is not; embeddings are of topics that are far from each other.
STATEMENTS = (
    "SELECT setseed(0.42)",
    """
    CREATE TABLE rag_vectors (id integer, model_id integer, embedding halfvec, is_current boolean, "of 100%" integer)
    PARTITION BY LIST (model_id)
    """,
    "CREATE TABLE vectors_7 PARTITION OF rag_vectors FOR VALUES IN (7)",
    "CREATE TABLE rag_vectors_8 PARTITION OF rag_vectors FOR VALUES IN (8)",
    """
    CREATE TEMPORARY TABLE topic AS
    SELECT place, ARRAY(SELECT random() - 0.5 FROM generate_series(1, 32) WHERE place >= 0) AS embedding
    FROM generate_series(0, 49) AS place
    """,
    """
    INSERT INTO rag_vectors
    SELECT number, 7, ARRAY(
        SELECT part + 0.6 * (random() - 0.5) FROM unnest(topic.embedding) part WHERE number > 0
    )::halfvec, number % 4 > 0, number % 10
    FROM generate_series(1, 4000) number JOIN topic ON place = number % 50
    """,
    f"CREATE INDEX {HALF} ON vectors_7 USING hnsw ((embedding::halfvec(32)) halfvec_cosine_ops) WITH {POOR}"
    ' WHERE is_current AND "of 100%" < 9',
    f"CREATE INDEX {BITS} ON vectors_7 USING hnsw ((binary_quantize(embedding)::bit(32)) bit_hamming_ops) WITH {POOR}",
    f"CREATE INDEX {FAR} ON vectors_7 USING hnsw ((embedding::vector(32)) vector_l2_ops) WITH {POOR}",
    "CREATE TABLE others (embedding vector(3))",
    "CREATE INDEX ON others USING hnsw (embedding vector_l2_ops)",
)


@pytest.fixture(scope="module")
def vectors(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """A database with poor indexes over 4,000 rows; tests of this module only look at it."""
    with made_database(server, template) as database:
        with connect(database) as connection:
            for statement in STATEMENTS:
                connection.execute(statement.encode())
            connection.execute("VACUUM ANALYZE")
        yield database


def index_of(connection: psycopg.Connection[TupleRow], name: str) -> HnswIndex:
    return next(each for each in find_hnsw_indexes(connection, "public") if each.name == name)


def test_every_index_of_ours_is_found_with_what_it_is_over(vectors: Database) -> None:
    found = {each.index: each for each in index_health.check_indexes(vectors, sample=0)}
    assert set(found) == {COLUMN, HALF, BITS, FAR}
    described = {(each.table, each.expression, each.opclass, each.predicate) for each in found.values()}
    assert described == {
        ("rag_chunks", "embedding", "vector_cosine_ops", "is_current"),
        ("vectors_7", "((embedding)::halfvec(32))", "halfvec_cosine_ops", '(is_current AND ("of 100%" < 9))'),
        ("vectors_7", "((binary_quantize(embedding))::bit(32))", "bit_hamming_ops", None),
        ("vectors_7", "((embedding)::vector(32))", "vector_l2_ops", None),
    }
    assert found[BITS].rows == 4000
    assert found[BITS].size > 100_000
    assert found[BITS].vacuumed_at is not None
    assert found[BITS].note == "no question was asked"


@pytest.mark.parametrize("name", [HALF, BITS, FAR])
def test_the_recall_is_what_searches_find_of_the_nearest(vectors: Database, name: str) -> None:
    """Worked out here by asking each question twice, by the index and by reading all rows."""
    with opened(find_options(vectors)) as at:
        connection = at.connection
        index = index_of(connection, name)
        measured = recall.measure_recall(connection, index, sample=30, ef_search=10, seed=3)
        questions = draw_questions(connection, index, 30, np.random.default_rng(3))
        shares = []
        for question in questions:
            nearest, found = (distances(connection, index, question, exact) for exact in (True, False))
            shares.append((Counter(nearest) & Counter(found)).total() / 10)
    assert len(questions) == measured.recall.questions == 30
    assert measured.recall.value == pytest.approx(np.mean(shares))
    assert measured.recall.compared == 1
    assert measured.recall.value < 0.95  # the index is poor
    assert measured.rows == (2600 if name == HALF else 4000)
    assert measured.dead_share == 0


def distances(
    connection: psycopg.Connection[TupleRow], index: HnswIndex, question: str, is_exact: bool
) -> list[float]:
    """Return the distances of the ten rows that a search finds, the nearest first."""
    with connection.transaction():
        connection.execute("SELECT '[1]'::vector")
        for setting in (
            f"enable_indexscan = {'off' if is_exact else 'on'}",
            f"enable_seqscan = {'on' if is_exact else 'off'}",
            "hnsw.ef_search = 10",
            "hnsw.iterative_scan = relaxed_order",
        ):
            connection.execute(f"SET LOCAL {setting}".encode())
        distance = f"{index.expression} {index.operator} '{question}'::{index.type}({index.dimensions})"
        rows = f"FROM {index.table} WHERE {index.predicate or 'true'} ORDER BY {distance} LIMIT 10"
        return sorted(row[0] for row in connection.execute(f"SELECT {distance} {rows}".encode()))


def test_of_a_large_table_a_sample_is_compared(vectors: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = health_of(vectors, FAR, seed=5, ef_search=20)
    monkeypatch.setattr(recall, "_COMPARISONS", 4_000)
    sampled = health_of(vectors, FAR, seed=5, ef_search=20)
    assert whole.recall is not None
    assert sampled.recall is not None
    assert whole.recall.compared == 1
    assert 0.1 < sampled.recall.compared < 0.5
    assert sampled.rows == pytest.approx(4000, rel=0.5)
    assert sampled.recall.value == pytest.approx(whole.recall.value, abs=0.2)


def health_of(database: Database, name: str, **options: Any) -> index_health.IndexHealth:
    return next(each for each in index_health.check_indexes(database, **options) if each.index == name)


def test_what_others_do_meanwhile_is_no_fault_of_the_index(vectors: Database) -> None:
    before = health_of(vectors, FAR, seed=1, sample=20)
    with connect(vectors) as other, other.transaction(force_rollback=True):
        other.execute("DELETE FROM rag_vectors WHERE id % 2 = 0")
        meanwhile = health_of(vectors, FAR, seed=1, sample=20)
    assert before.recall is not None
    assert meanwhile.recall is not None
    assert (meanwhile.rows, meanwhile.recall.value) == (4000, before.recall.value)


def test_candidates_are_those_that_a_search_keeps(vectors: Database) -> None:
    asked = health_of(vectors, BITS, sample=1).recall
    assert asked is not None
    assert asked.ef_search == 80
    with connect(vectors) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET hnsw.ef_search = 33".encode())
        asked = health_of(vectors, BITS, sample=1).recall
        connection.execute(f"ALTER DATABASE {connection.info.dbname} RESET hnsw.ef_search".encode())
    assert asked is not None
    assert asked.ef_search == 33


def test_an_engine_of_the_callers_is_asked_and_given_back(vectors: Database) -> None:
    engine = create_engine(vectors.libpq_url())
    assert len(index_health.check_indexes(engine, sample=1)) == 4
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW enable_seqscan").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW hnsw.ef_search").scalar_one() == "40"
    engine.dispose()


def test_an_index_without_rows_is_not_measured_and_not_below(vectors: Database) -> None:
    empty = health_of(vectors, COLUMN)
    assert (empty.recall, empty.note) == (None, "it has no rows")
    assert not empty.is_below(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample": -1}, "The sample is -1"),
        ({"ef_search": 1001}, "Give 1 to 1000"),
        ({"if_recall_below": 98.0}, "The recall is 98.0"),
    ],
)
def test_numbers_out_of_range_are_refused(vectors: Database, arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        index_health.maintain(vectors, **arguments)


@pytest.fixture
def poor(server: Mapping[str, str], vectors: Database) -> Iterator[Database]:
    """A test's own copy of the poor indexes."""
    with made_database(server, vectors.parameters["dbname"]) as database:
        yield database


def test_maintenance_rebuilds_what_is_below_and_leaves_the_rest(poor: Database, run: Command) -> None:
    with connect(poor) as connection:
        connection.execute(f"ALTER INDEX {FAR} SET (m = 24, ef_construction = 200)".encode())
        connection.execute(
            f"DROP INDEX {BITS}; DROP INDEX {HALF}; DELETE FROM rag_vectors WHERE id > 3500".encode()
        )
    url = {"DATABASE_URL": poor.libpq_url()}
    checked = run("rag", "index", "health", "--fail-below", "0.96", "--ef-search", "20", **url)
    assert (checked.returncode, FAR in checked.stdout) == (5, True), checked.stderr
    done = run("rag", "index", "maintain", "--if-recall-below", "0.96", "--ef-search", "20", "--json", **url)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    before, after = ({each["index"]: each for each in document[which]} for which in ("before", "after"))
    assert [each["index"] for each in document["rebuilt"]] == [FAR]
    assert document["vacuumed"] == ["vectors_7"]
    assert before[FAR]["recall"]["value"] < 0.93
    assert before[FAR]["dead_share"] > 0.01
    assert after[FAR]["recall"]["value"] >= 0.96
    assert after[FAR]["dead_share"] == 0
    # of another sample of questions, of which an index at 0.96 may answer a little less
    again = run("rag", "index", "maintain", "--if-recall-below", "0.93", "--ef-search", "20", **url)
    assert (again.returncode, "Nothing to do" in again.stdout) == (0, True)


def test_maintenance_that_does_not_help_says_so(poor: Database, run: Command) -> None:
    done = run("rag", "index", "maintain", "--ef-search", "1", DATABASE_URL=poor.libpq_url())
    assert done.returncode == 5
    assert {f"rebuilt {name}" for name in (BITS, FAR, HALF)} == {
        line.partition("  ")[0] for line in done.stdout.splitlines() if line.startswith("rebuilt ")
    }


def interrupted_rebuild(database: Database, name: str) -> None:
    with connect(database) as connection, pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(f"REINDEX INDEX CONCURRENTLY {name}".encode())


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("LOCK TABLE vectors_7 IN ROW EXCLUSIVE MODE", f"{FAR}_ccnew"),  # before the build
        ("SELECT count(*) FROM vectors_7", f"{FAR}_ccold"),  # after it
    ],
)
def test_what_an_interrupted_rebuild_has_left_is_dropped(poor: Database, statement: str, left: str) -> None:
    with connect(poor) as connection, in_the_way(poor, statement):
        rebuilding = threading.Thread(target=interrupted_rebuild, args=(poor, FAR))
        rebuilding.start()
        connection.execute("SELECT pg_cancel_backend(%s)", (wait_for_build(poor),))
        rebuilding.join()
    seen = health_of(poor, left, sample=1)
    assert (seen.is_valid, seen.note, seen.is_below(0.0)) == (False, "it is invalid", True)
    done = index_health.rebuild(poor, FAR)
    assert done.dropped == (left,)
    assert [each.index for each in done.rebuilt] == [FAR]
    found = {each.index: each.is_valid for each in index_health.check_indexes(poor, sample=0)}
    assert found == {COLUMN: True, HALF: True, BITS: True, FAR: True}


def test_who_holds_a_rebuild_up_is_named(poor: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ragschema")
    with in_the_way(poor, "SELECT count(*) FROM vectors_7") as pid:
        rebuilding = threading.Thread(target=index_health.rebuild, args=(poor, BITS))
        rebuilding.start()
        while f"Waiting for pid {pid} (a reader at lunch)" not in caplog.text and rebuilding.is_alive():
            rebuilding.join(0.05)
        assert rebuilding.is_alive()
    rebuilding.join()
    assert f"Waiting for pid {pid} (a reader at lunch)" in caplog.text
    assert health_of(poor, BITS, sample=0).is_valid


def test_an_index_that_is_not_there_is_named_with_those_that_are(vectors: Database) -> None:
    with pytest.raises(UsageError, match=f"no_such_idx\\.\nName one of {COLUMN}, {BITS}, {FAR}, {HALF}"):
        index_health.rebuild(vectors, "no_such_idx")


def test_a_rebuild_needs_room_on_the_disk(vectors: Database) -> None:
    with opened(find_options(vectors)) as at:
        index = index_of(at.connection, FAR)
        room = find_room(at, index)
    assert room is not None
    assert room > needed_room(index) >= 2 * index.size
    refuse_without_room(index, None)
    with pytest.raises(RagSchemaError, match="the server's disk has 0 MB left"):
        refuse_without_room(replace(index, size=room), 0)


@pytest.mark.parametrize("index_type", ["halfvec", "bit"])
def test_the_index_of_another_embedding_model_is_measured_and_maintained(
    database: Database, index_type: Any
) -> None:
    add_model(database, "new", DIMENSIONS, index_type=index_type)
    write_chunks(database, 200)
    enqueue_backfill(database, "new")
    engine = create_engine(database.libpq_url())
    do_jobs(engine)
    engine.dispose()
    index_model(database, "new")
    done = index_health.maintain(database, if_recall_below=0.5, sample=20)
    (found,) = [each for each in done.after if each.table != "rag_chunks"]
    assert found.rows == 200
    assert found.predicate is not None
    assert found.recall is not None
    assert found.recall.value > 0.9
    assert [each.index for each in index_health.rebuild(database, found.index).rebuilt] == [found.index]
