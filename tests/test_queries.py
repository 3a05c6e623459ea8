"""What the statements return, against brute force."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from conftest import filled, make_engine
from publishing import publish_texts
from ragschema import (
    Chunk,
    ChunkEvent,
    ChunkEventType,
    Document,
    DocumentVersion,
    EmbeddingError,
    QueryError,
    chunk_history,
    create_async_engine,
    create_engine,
    hybrid_search,
    nearest_chunks,
    pending_embeddings,
    search_settings,
    version_chunks,
    version_diff,
)
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector
from ragschema.publishing import retire_document
from ragschema.queries import word_hits

DOCUMENTS, CHUNKS = 1000, 4


database = filled(documents=DOCUMENTS, chunks=CHUNKS)
engine = pytest.fixture(scope="module")(make_engine)


@dataclass(frozen=True)
class Truth:
    """The current chunks, read without the statements that are tested."""

    rows: dict[UUID, sa.Row[Any]]
    ids: list[UUID]
    embeddings: Vector

    def distances(self, embedding: Vector) -> Vector:
        found: Vector = 1 - self.embeddings @ embedding / np.linalg.norm(embedding)
        return found

    def nearest(self, embedding: Vector, limit: int, passes: Sequence[bool] | None = None) -> list[UUID]:
        order = np.argsort(self.distances(embedding))
        return [self.ids[place] for place in order if passes is None or passes[place]][:limit]


@pytest.fixture(scope="module")
def truth(engine: sa.Engine) -> Truth:
    statement = text(
        """
        SELECT c.id AS chunk_id, d.id AS document_id, d.article_id, v.id AS version_id, v.version_number,
               e.ordinal, v.title, v.url, c.content, c.text_config, c.embedding::real[] AS embedding
        FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id
        JOIN rag_chunk_events e ON e.version_id = v.id AND e.event_type <> 'deleted'
        JOIN rag_chunks c ON c.id = e.chunk_id
        """
    )
    with engine.connect() as connection:
        rows = {row.chunk_id: row for row in connection.execute(statement)}
    assert len(rows) == DOCUMENTS * CHUNKS
    embeddings = np.array([row.embedding for row in rows.values()], np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Truth(rows, list(rows), embeddings)


@pytest.fixture(scope="module")
def questions(truth: Truth) -> list[Vector]:
    """Embeddings near some of the chunks."""
    numbers = np.random.default_rng(7)
    chosen = truth.embeddings[numbers.integers(len(truth.ids), size=12)]
    return list((chosen + numbers.normal(0, 0.01, chosen.shape)).astype(np.float32))


def recall(found: Sequence[UUID], expected: Sequence[UUID]) -> float:
    return len(set(found) & set(expected)) / len(expected)


# By embedding.


def test_the_nearest_come_with_where_they_stand_now(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    recalls = []
    for question in questions:
        hits = session.execute(nearest_chunks(question.tolist(), limit=10)).all()
        distances = dict(zip(truth.ids, truth.distances(question), strict=True))
        for hit in hits:
            row = truth.rows[hit.chunk_id]
            assert hit._fields[9:] == ("distance", "start_offset", "end_offset", "details")
            assert list(hit[:9]) == [getattr(row, name) for name in hit._fields[:9]]
            assert hit.distance == pytest.approx(distances[hit.chunk_id], abs=1e-5)
        assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
        assert len(hits) == 10
        recalls.append(recall([hit.chunk_id for hit in hits], truth.nearest(question, 10)))
    assert np.mean(recalls) >= 0.97
    assert {hit.version_number for hit in hits} == {2}  # most of them were written with version 1
    assert {session.get_one(Chunk, hit.chunk_id).version.version_number for hit in hits} >= {1}


def test_more_rows_than_ef_search_come(session: Session, truth: Truth, questions: list[Vector]) -> None:
    hits = session.scalars(nearest_chunks(questions[0], limit=150)).all()
    assert len(hits) == 150
    assert recall(hits, truth.nearest(questions[0], 150)) >= 0.9


SHARES = {"one document": 1, "one in a hundred": 10, "one in ten": 100, "half": 500, "all": 1000}


@pytest.mark.parametrize("count", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("by", ["article_id", "document_id"])
def test_filtered_by_document_the_limit_is_filled(
    session: Session, truth: Truth, questions: list[Vector], count: int, by: str
) -> None:
    every = sorted({getattr(row, by) for row in truth.rows.values()}, key=str)
    recalls = []
    for number, question in enumerate(questions):
        allowed = set(np.random.default_rng(number).permutation(np.array(every, object))[:count].tolist())
        passes = [getattr(row, by) in allowed for row in truth.rows.values()]
        filters: dict[str, Any] = {f"{by}s": list(allowed)}
        hits = session.execute(nearest_chunks(question, limit=10, **filters)).all()
        assert len(hits) == min(10, count * CHUNKS)
        assert {getattr(hit, by) for hit in hits} <= allowed
        recalls.append(recall([hit.chunk_id for hit in hits], truth.nearest(question, 10, passes)))
    assert np.mean(recalls) >= 0.95


def test_filtered_by_any_condition_the_limit_is_filled(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    conditions: list[tuple[sa.ColumnElement[bool], Callable[[Any], bool]]] = [
        (DocumentVersion.title == "Title 7", lambda row: row.title == "Title 7"),
        (DocumentVersion.version_number == 2, lambda row: True),
        (DocumentVersion.version_number == 1, lambda row: False),
        (Document.text_config == "english", lambda row: row.text_config == "english"),
        (Chunk.content.like("%cut at 3%"), lambda row: "cut at 3" in row.content),
        (
            DocumentVersion.title.in_(["Title 1", "Title 2"]) & (Chunk.ordinal == 2),
            lambda row: row.title in ("Title 1", "Title 2") and row.ordinal == 2,
        ),
    ]
    for condition, is_met in conditions:
        passes = [is_met(row) for row in truth.rows.values()]
        recalls = []
        for question in questions:
            hits = session.scalars(nearest_chunks(question, where=condition)).all()
            expected = truth.nearest(question, 10, passes)
            assert len(hits) == len(expected)
            recalls.append(recall(hits, expected) if expected else 1)
        assert np.mean(recalls) >= 0.95


def test_filters_are_and_ed(session: Session, truth: Truth, questions: list[Vector]) -> None:
    row = next(iter(truth.rows.values()))
    both: dict[str, Any] = {"article_ids": [row.article_id], "document_ids": [row.document_id]}
    title = DocumentVersion.title == row.title
    assert len(session.scalars(nearest_chunks(questions[0], where=title, **both)).all()) == CHUNKS
    others: list[dict[str, Any]] = [
        {"article_ids": ["article-x"]},
        {"document_ids": [uuid4()]},
        {"where": DocumentVersion.title != row.title},
    ]
    for other in others:
        assert session.scalars(nearest_chunks(questions[0], **({"where": title} | both | other))).all() == []


@pytest.mark.parametrize("filters", [{"article_ids": []}, {"document_ids": []}, {"where": sa.false()}])
def test_an_empty_filter_lets_nothing_through(
    session: Session, questions: list[Vector], filters: dict[str, Any]
) -> None:
    assert session.execute(nearest_chunks(questions[0], **filters)).all() == []


def test_where_the_scan_gives_up_every_chunk_that_passes_is_looked_at(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    search_settings(session, max_scan_tuples=1, ef_search=5)
    for way in (
        "seqscan",
        "bitmapscan",
        "hashjoin",
        "mergejoin",
        "sort",
    ):  # so that the index is what it reads
        session.execute(text(f"SET LOCAL enable_{way} = off"))
    passes = [row.title == "Title 7" for row in truth.rows.values()]
    title = DocumentVersion.title == "Title 7"
    for question in questions:
        assert session.scalars(nearest_chunks(question, where=title)).all() == truth.nearest(
            question, 10, passes
        )


def test_searches_of_different_width_keep_right_once_prepared(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    articles = sorted({row.article_id for row in truth.rows.values()})
    for turn in range(24):
        width = (500, 1, 3, 900)[turn % 4] if turn >= 12 else 2
        question = questions[turn % len(questions)]
        allowed = articles[turn : turn + width]
        passes = [row.article_id in set(allowed) for row in truth.rows.values()]
        hits = session.scalars(nearest_chunks(question, article_ids=allowed)).all()
        assert len(hits) == min(10, width * CHUNKS)
        assert recall(hits, truth.nearest(question, 10, passes)) >= 0.7
    runs = text(
        "SELECT max(generic_plans + custom_plans) FROM pg_prepared_statements WHERE statement LIKE '%WITH gate%'"
    )
    assert session.execute(runs).scalar_one() > 12


def test_a_search_makes_its_own_scan_go_on_whatever_engine_runs_it(
    database: Database, questions: list[Vector]
) -> None:
    for engine in (
        create_engine(database.libpq_url()),
        sa.create_engine(database.url(), isolation_level="AUTOCOMMIT"),
        sa.create_engine(database.url(), connect_args={"prepare_threshold": 0}),
    ):
        with engine.connect() as connection:
            assert len(connection.execute(nearest_chunks(questions[0], limit=100)).all()) == 100
            connection.rollback()
            assert connection.scalar(text("SHOW hnsw.iterative_scan")) == "off"
        engine.dispose()


def test_a_scan_that_goes_on_already_is_left_as_it_is(session: Session, questions: list[Vector]) -> None:
    search_settings(session, iterative_scan="strict_order")
    session.execute(nearest_chunks(questions[0]))
    assert setting(session, "iterative_scan") == "strict_order"


def setting(session: Session, name: str) -> str | None:
    """Return what a search goes by: on Citus that of the node, which is asked by reading a table."""
    there = "(SELECT count(*) FROM rag_documents) there"
    found = session.execute(text(f"SELECT current_setting('hnsw.{name}', true) FROM {there}")).scalar_one()
    return None if found is None else str(found)


def test_a_search_keeps_candidates_enough_where_nobody_has_chosen(
    session: Session, questions: list[Vector]
) -> None:
    kept = []
    for limit in (10, 200, 2_000, 10):
        session.execute(nearest_chunks(questions[0], limit=limit))
        kept.append(setting(session, "ef_search"))
    assert kept == ["80", "200", "1000", "80"]
    session.rollback()
    assert setting(session, "ef_search") == "40"
    session.execute(hybrid_search(questions[0], "whale", candidates=90))
    assert setting(session, "ef_search") == "90"


@pytest.mark.parametrize("chosen", [25, 40, 80, 300])
def test_the_candidates_that_a_session_has_chosen_stay(
    session: Session, questions: list[Vector], chosen: int
) -> None:
    session.execute(nearest_chunks(questions[0]))
    search_settings(session, ef_search=chosen)
    session.execute(nearest_chunks(questions[0], limit=200))
    assert setting(session, "ef_search") == str(chosen)


@pytest.mark.parametrize("chosen", [25, 40, 80, 300])
def test_candidates_that_are_set_in_sql_stay_but_for_what_is_the_default(
    session: Session, questions: list[Vector], chosen: int
) -> None:
    session.execute(text(f"SET LOCAL hnsw.ef_search = {chosen}"))
    session.execute(nearest_chunks(questions[0]))
    assert setting(session, "ef_search") == str(80 if chosen == 40 else chosen)


def test_what_is_farther_than_the_greatest_distance_is_left_out(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    every = [f"article-{number}" for number in range(DOCUMENTS)]
    for article_ids in (None, every):
        for question in questions:
            near = [hit.distance for hit in session.execute(nearest_chunks(question, limit=10))]
            greatest = (near[3] + near[4]) / 2
            hits = session.execute(
                nearest_chunks(question, max_distance=greatest, article_ids=article_ids)
            ).all()
            assert [hit.distance for hit in hits] == pytest.approx(near[:4])
            nothing = nearest_chunks(question, max_distance=-1, article_ids=article_ids)
            assert session.execute(nothing).all() == []


def test_chunks_that_are_not_current_or_have_no_embedding_are_left_out(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    first, second, third = truth.nearest(questions[0], 3)
    session.execute(text("UPDATE rag_chunks SET is_current = false WHERE id = :id"), {"id": first})
    session.execute(text("UPDATE rag_chunks SET embedding = NULL WHERE id = :id"), {"id": second})
    for where in (None, sa.true()):
        hits = session.scalars(nearest_chunks(questions[0], where=where)).all()
        assert hits[0] == third
        assert first not in hits
        assert second not in hits


def test_a_chunk_that_a_version_holds_twice_is_one_hit(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    nearest = truth.rows[truth.nearest(questions[0], 1)[0]]
    session.add(
        ChunkEvent(
            version_id=nearest.version_id,
            chunk_id=nearest.chunk_id,
            ordinal=99,
            event_type=ChunkEventType.unchanged,
        )
    )
    hits = session.execute(nearest_chunks(questions[0])).all()
    assert [hit.ordinal for hit in hits if hit.chunk_id == nearest.chunk_id] == [nearest.ordinal]


def test_a_version_without_events_has_its_chunks_where_they_were_written(
    session: Session, truth: Truth, questions: list[Vector]
) -> None:
    nearest = truth.rows[truth.nearest(questions[0], 1)[0]]
    session.execute(sa.delete(ChunkEvent).where(ChunkEvent.version_id == nearest.version_id))
    hit = session.execute(nearest_chunks(questions[0], limit=1)).one()
    assert hit.ordinal == session.get_one(Chunk, hit.chunk_id).ordinal


def test_a_search_can_be_part_of_another_statement(session: Session, questions: list[Vector]) -> None:
    hits = nearest_chunks(questions[0], article_ids=["article-1", "article-2"]).subquery()
    assert session.scalar(select(func.count()).select_from(hits)) == 2 * CHUNKS


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a zero embedding": (lambda: nearest_chunks([0.0] * 768), EmbeddingError, "zero"),
    "an embedding in a list": (lambda: nearest_chunks([[1.0] * 768]), EmbeddingError, "1x768 dimensions"),
    "no rows": (lambda: nearest_chunks([1.0] * 768, limit=0), QueryError, "limit is 0"),
    "no pending rows": (lambda: pending_embeddings(limit=-1), QueryError, "limit is -1"),
    "nothing to search for": (lambda: hybrid_search(None, None), QueryError, "nothing to search for"),
    "no candidates": (lambda: hybrid_search(None, "a", candidates=0), QueryError, "candidates is 0"),
    "a negative k": (lambda: hybrid_search(None, "a", rrf_k=-1), QueryError, "rrf_k is -1"),
    "a zero embedding beside a text": (lambda: hybrid_search([0] * 768, "a"), EmbeddingError, "zero"),
}


@pytest.mark.parametrize(("build", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_asked_is_refused_at_once(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


# Settings.


def test_settings_hold_for_the_transaction(session: Session) -> None:
    search_settings(session)
    search_settings(
        session,
        ef_search=77,
        iterative_scan="strict_order",
        max_scan_tuples=123,
        scan_mem_multiplier=1.5,
    )
    names = ("ef_search", "iterative_scan", "max_scan_tuples", "scan_mem_multiplier")
    shown = [setting(session, name) for name in names]
    assert shown == ["77", "strict_order", "123", "1.5"]
    session.rollback()
    assert [setting(session, name) for name in names] == ["40", "off", "20000", "1"]


def test_settings_take_one_round_trip_on_a_fresh_connection(database: Database) -> None:
    engine = sa.create_engine(database.url())
    sent: list[str] = []
    with Session(engine) as session:
        session.connection()
        event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
        search_settings(session, ef_search=100, iterative_scan="relaxed_order")
        assert len(sent) == 1
        assert setting(session, "ef_search") == "100"
    engine.dispose()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ef_search": 0}, "ef_search is 0"),
        ({"ef_search": 1001}, "Pass 1 to 1000"),
        ({"max_scan_tuples": 0}, "max_scan_tuples is 0"),
        ({"max_scan_tuples": 2**31}, "Pass 1 to 2147483647"),
        ({"scan_mem_multiplier": 0.5}, "scan_mem_multiplier is 0.5"),
        ({"iterative_scan": "on"}, "Pass one of off, relaxed_order, strict_order"),
    ],
)
def test_settings_out_of_range_are_refused(session: Session, settings: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        search_settings(session, **settings)


def test_a_server_that_does_not_know_a_setting_is_named_as_the_reason(database: Database) -> None:
    engine = sa.create_engine(database.url())

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def ask_for_unknown_names(*arguments: Any) -> tuple[str, Any]:
        return arguments[2].replace("hnsw.iterative", "hnsw.unheard_of"), arguments[3]

    with Session(engine) as session:
        with pytest.raises(QueryError, match=r"no setting hnsw\.iterative_scan\.\n.*pgvector 0\.8"):
            search_settings(session, iterative_scan="strict_order")
        assert session.scalar(text("SELECT 1")) == 1  # the transaction goes on
    engine.dispose()


@pytest.mark.parametrize("of", [Document, Document.__mro__[1]], ids=["Document", "Base"])
def test_a_session_with_an_engine_of_the_models_finds_it(
    engine: sa.Engine, questions: list[Vector], of: Any
) -> None:
    with Session(binds={of: engine}) as session:
        for statement in (nearest_chunks(questions[0]), hybrid_search(questions[0], "word21")):
            assert len(session.execute(statement).all()) == 10


def test_what_a_condition_says_in_quotes_stays_as_it_is(session: Session, questions: list[Vector]) -> None:
    quoted = sa.literal_column("length('a version.title AS title')") == 24
    assert len(session.execute(nearest_chunks(questions[0], where=quoted)).all()) == 10


def test_a_search_with_its_values_in_the_text_can_be_pasted_and_explained(
    session: Session, questions: list[Vector]
) -> None:
    not_21 = Document.article_id != "article-21"
    version = select(DocumentVersion.id).limit(1)
    for statement in (
        nearest_chunks(questions[0], where=not_21, max_distance=1.5),
        nearest_chunks(questions[0], article_ids=["article-21", "article-22"], model="default"),
        hybrid_search(questions[0], "word21 isn't", where=not_21),
        hybrid_search(None, "word23", text_configs=["english"]),
        version_chunks(session.scalars(version).one()),
    ):
        literal = statement.compile(session.connection().engine, compile_kwargs={"literal_binds": True})
        pasted = session.connection().exec_driver_sql(str(literal).replace("%", "%%")).scalars().all()
        assert pasted == session.scalars(statement).all() != []


# By words as well.


def words_of(content: str) -> set[str]:
    """Return the words of a content, and the letters and the digits of each."""
    return {part for word in re.findall(r"\w+", content.lower()) for part in (word, *parts_of(word))}


def parts_of(word: str) -> list[str]:
    return re.findall(r"\d+|[^\W\d]+", word)


def weigh(truth: Truth, question: str) -> dict[UUID, float]:
    """Return how much each chunk shares with a text: it has a word as that, or else its letters and digits."""
    held = {row.chunk_id: words_of(row.content) for row in truth.rows.values()}
    found: dict[UUID, float] = {}
    for word in set(re.findall(r"\w+", question.lower())):
        weights: dict[UUID, float] = {}
        for ways in ({word}, set(parts_of(word))):
            having = [chunk for chunk, words in held.items() if ways <= words]
            for chunk in having:
                weights[chunk] = max(weights.get(chunk, 0), math.log(1 + 5000 / len(having)))
        for chunk, weight in weights.items():
            found[chunk] = found.get(chunk, 0) + weight
    return found


def test_words_are_weighed_by_how_rare_they_are(session: Session, truth: Truth) -> None:
    for question in ("word21", "Word21 or WORD22 cut at 3?", "article 21 article 22", "no such thing as 421"):
        expected = weigh(truth, question)
        hits = session.execute(hybrid_search(None, question, limit=20)).all()
        assert len(hits) == min(20, len(expected))
        for hit in hits:
            assert 0 <= hit.text_score - expected[hit.chunk_id] < 1
            assert (hit.distance, hit.distance_rank) == (None, None)
            row = truth.rows[hit.chunk_id]
            assert (hit.version_id, hit.ordinal, hit.content) == (row.version_id, row.ordinal, row.content)
        assert [hit.text_rank for hit in hits] == list(range(1, len(hits) + 1))
        assert [hit.text_score for hit in hits] == sorted((hit.text_score for hit in hits), reverse=True)
        lightest = sorted(expected.values(), reverse=True)[len(hits) - 1]
        assert min(expected[hit.chunk_id] for hit in hits) == pytest.approx(lightest)


def test_ranks_are_fused_by_their_reciprocals(session: Session, questions: list[Vector]) -> None:
    question = "word21 or word22 cut at 3"
    for embedding in questions:
        near = session.execute(hybrid_search(embedding, None, limit=30, candidates=30)).all()
        worded = session.execute(hybrid_search(None, question, limit=30, candidates=30)).all()
        scores: dict[UUID, float] = {}
        for hits in (near, worded):
            for rank, hit in enumerate(hits, start=1):
                scores[hit.chunk_id] = scores.get(hit.chunk_id, 0) + 1 / (5 + rank)
        expected = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:15]
        both = session.execute(hybrid_search(embedding, question, limit=15, candidates=30, rrf_k=5)).all()
        assert [hit.chunk_id for hit in both] == expected
        for hit in both:
            assert hit.score == pytest.approx(scores[hit.chunk_id])
            shares = [1 / (5 + rank) for rank in (hit.distance_rank, hit.text_rank) if rank is not None]
            assert hit.score == pytest.approx(sum(shares))
            assert (hit.distance is None) == (hit.distance_rank is None)
            assert (hit.text_score is None) == (hit.text_rank is None)


def test_without_words_the_embedding_decides(session: Session, truth: Truth, questions: list[Vector]) -> None:
    nearest = session.scalars(nearest_chunks(questions[0])).all()
    for nothing in (None, "", " \t\n", "?!", "\0"):
        assert session.scalars(hybrid_search(questions[0], nothing)).all() == nearest
    stop_words = hybrid_search(questions[0], "the of and", text_configs=["english"])
    assert session.scalars(stop_words).all() == nearest
    assert session.scalars(hybrid_search(questions[0], "word21", text_configs=[])).all() == nearest
    assert session.execute(hybrid_search(None, "the of and", text_configs=["english"])).all() == []
    assert session.execute(hybrid_search(None, "")).all() == []


def test_filters_hold_for_both_searches(session: Session, truth: Truth, questions: list[Vector]) -> None:
    question = "common word21 article"
    two = ["article-21", "article-30"]
    cases: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
        ({"article_ids": two}, lambda row: row.article_id in two),
        ({"where": DocumentVersion.title == "Title 21"}, lambda row: row.title == "Title 21"),
        ({"where": Chunk.content.like("%cut at 2%")}, lambda row: "cut at 2" in row.content),
        ({"article_ids": []}, lambda row: False),
    ]
    for filters, is_met in cases:
        hits = session.execute(hybrid_search(questions[0], question, limit=5, **filters)).all()
        assert len(hits) == min(5, sum(map(is_met, truth.rows.values())))
        assert all(is_met(truth.rows[hit.chunk_id]) for hit in hits)
    near = session.execute(hybrid_search(questions[0], "word21", max_distance=0.2)).all()
    assert any(hit.distance is None for hit in near)
    assert all(hit.distance is None or hit.distance <= 0.2 for hit in near)


def test_each_configuration_finds_its_own_documents(session: Session, truth: Truth) -> None:
    def configs(question: str, *names: str) -> set[str]:
        hits = session.scalars(hybrid_search(None, question, text_configs=names, limit=200, candidates=4000))
        return {truth.rows[chunk].text_config for chunk in hits}

    assert configs("runs", "english") == {"english"}  # by its stem
    assert configs("runs", "simple") == set()
    assert configs("running", "simple") == {"simple", "english"}  # a word as it stands, in every document
    assert configs("word23 word22", "simple", "english") == {"simple", "english"}
    assert configs("word23 word22", "english") == {"english"}
    assert configs("word23 word22", "simple", "simple") == {"simple", "english"}
    with pytest.raises(sa.exc.ProgrammingError, match="klingon"):
        configs("word23", "klingon")


HOSTILE = {
    "NUL": "word21\0word22",
    "quotes": """'word21' "word22" ''' \\' $$word21$$""",
    "operators": "word21 & | ! <-> :* :A ( ) !word22 <2>",
    "backslashes": r"\word21 \\ word21\'; C:\temp\word22 http://a.b/c\d'e",
    "parameters": "%(word21)s :word22 %s {} $1",
    "a lone surrogate": "word21 \ud800",
    "one long word": "x" * 10_000 + " word21",
    "2 MB": "word21 " * 300_000,
    "2 MB of different words": "word21 " + " ".join(f"w{number}" for number in range(300_000)),
    "many scripts": "word21 Straße 東京 🙂 ﷽ é",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("question", HOSTILE.values(), ids=HOSTILE)
def test_any_text_may_be_searched_for(session: Session, question: str) -> None:
    hits = session.execute(hybrid_search(None, question, limit=20)).all()
    assert sum("word21" in words_of(hit.content) for hit in hits) == 8


def test_a_path_with_quotes_and_backslashes_finds_its_chunk(session: Session, truth: Truth) -> None:
    path = r"http://example.org/it's\here"
    chunk = truth.ids[0]
    config = truth.rows[chunk].text_config
    session.execute(sa.update(Chunk).where(Chunk.id == chunk).values(content=f"see {path} for more"))
    assert chunk in session.scalars(hybrid_search(None, path, text_configs=[config])).all()


def test_only_the_first_words_are_searched_for(session: Session) -> None:
    filler = " ".join(f"{'filler' * number}" for number in range(1, word_hits.WORDS + 1))
    assert session.execute(hybrid_search(None, f"{filler} word21")).all() == []
    assert session.execute(hybrid_search(None, f"word21 {filler}")).all() != []


def test_common_words_are_passed_over_while_there_are_rarer_ones(
    session: Session, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_hits, "COMMON", 50)
    rare = session.execute(hybrid_search(None, "common word21", limit=200, rrf_k=61)).all()
    assert len(rare) == sum("word21" in words_of(row.content) for row in truth.rows.values())
    common = session.execute(hybrid_search(None, "common article", limit=200, rrf_k=61)).all()
    assert 51 <= len(common) <= 102


def test_a_chunk_of_two_megabytes_is_found_by_its_beginning_and_its_end(session: Session) -> None:
    words = "zanzibar " + " ".join(f"word-{number}" for number in range(200_000)) + " timbuktu"
    assert len(words) > 2_000_000
    publish_texts(session, "long", [words])
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    hit = session.execute(hybrid_search(None, "Zanzibar?")).one()
    assert (hit.article_id, len(hit.content)) == ("long", len(words))
    assert session.scalars(hybrid_search(None, "Timbuktu")).all() == [hit.chunk_id]
    assert hit.chunk_id in session.scalars(hybrid_search(None, "word-123456")).all()


# Versions.


def current_id(session: Session, article_id: str) -> UUID:
    found = session.scalar(select(Document.current_version_id).where(Document.article_id == article_id))
    assert found is not None
    return found


@pytest.mark.parametrize("copy_unchanged", [False, True], ids=["shared", "copied"])
def test_the_chunks_of_each_version_come_in_order(session: Session, copy_unchanged: bool) -> None:
    contents = [["a", "b", "b", "c"], ["b", "x", "a", "b"], [], ["b"]]
    versions = []
    for texts in contents:
        if texts:
            publish_texts(session, "story", texts, copy_unchanged=copy_unchanged)
        else:
            retire_document(session, "story")
        versions.append(current_id(session, "story"))
    for version, texts in zip(versions, contents, strict=True):
        rows = session.execute(version_chunks(version)).all()
        assert [(row.ordinal, row.content) for row in rows] == list(enumerate(texts))


def test_a_version_without_events_is_the_chunks_written_with_it(session: Session) -> None:
    version = DocumentVersion(version_number=1, source_hash="h", chunker_version="c", embedder_version="e")
    version.document = Document(article_id="by hand", current_version=version)
    version.chunks = [Chunk(ordinal=ordinal, content=content) for ordinal, content in ((7, "b"), (3, "a"))]
    session.add(version)
    session.flush()
    rows = session.execute(version_chunks(version.id)).all()
    assert [(row.ordinal, row.content) for row in rows] == [(3, "a"), (7, "b")]
    assert session.execute(version_chunks(uuid4())).all() == []


DIFFERENCES = {
    "nothing": ("ab", "ab", "=a =b"),
    "an insertion moves nothing": ("ab", "xab", "+x =a =b"),
    "an edit": ("abc", "axc", "=a b>x =c"),
    "an edit after an insertion": ("abc", "naxc", "+n =a b>x =c"),
    "a deletion": ("abc", "ac", "=a -b =c"),
    "an edit of two into one": ("abcd", "axd", "=a b>x -c =d"),
    "a swap": ("ab", "ba", "~b ~a"),
    "one copy less": ("aab", "ab", "=a -a =b"),
    "one copy more": ("ab", "aab", "=a +a =b"),
    "everything": ("ab", "xyz", "a>x b>y +z"),
}
"""Old and new contents, a letter each, and what became of them: = unchanged, ~ moved, > updated."""


@pytest.mark.parametrize(("old", "new", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_diff_says_what_became_of_each_chunk(session: Session, old: str, new: str, expected: str) -> None:
    publish_texts(session, "edited", list(old))
    first = current_id(session, "edited")
    if new != old:
        publish_texts(session, "edited", list(new))
    second = current_id(session, "edited")
    rows = session.execute(version_diff(first, second)).all()
    signs = {
        "unchanged": "={0}",
        "moved": "~{0}",
        "updated": "{0}>{1}",
        "added": "+{1}",
        "deleted": "-{0}",
    }
    assert [signs[row.change].format(row.old_content, row.new_content) for row in rows] == expected.split()
    for row in rows:
        assert row.old_ordinal is None or old[row.old_ordinal] == row.old_content
        assert row.new_ordinal is None or new[row.new_ordinal] == row.new_content
        for chunk_id, content in ((row.old_chunk_id, row.old_content), (row.new_chunk_id, row.new_content)):
            assert (chunk_id is None) == (content is None)
            assert chunk_id is None or session.get_one(Chunk, chunk_id).content == content
    back = sorted(row.change for row in session.execute(version_diff(second, first)))
    inverse = {"added": "deleted", "deleted": "added"}
    assert back == sorted(inverse.get(row.change, row.change) for row in rows)


def test_any_two_versions_differ_by_their_multisets(session: Session) -> None:
    numbers = np.random.default_rng(3)
    for turn in range(8):
        texts = ["".join(numbers.choice(list("abcdef"), size=9)) for _ in range(2)]
        versions = []
        for number, letters in enumerate(texts):
            publish_texts(session, f"random {turn}", list(letters), source_hash=str(number))
            versions.append(current_id(session, f"random {turn}"))
        rows = session.execute(version_diff(versions[0], versions[1])).all()
        assert sorted(row.old_ordinal for row in rows if row.old_ordinal is not None) == list(range(9))
        assert sorted(row.new_ordinal for row in rows if row.new_ordinal is not None) == list(range(9))
        kept = sum(row.change in ("unchanged", "moved") for row in rows)
        assert kept == sum(min(texts[0].count(letter), texts[1].count(letter)) for letter in "abcdef")
        assert all(row.old_content != row.new_content for row in rows if row.change == "updated")


def test_the_history_tells_what_each_version_did(session: Session) -> None:
    publish_texts(session, "told", ["a", "b"])
    publish_texts(session, "told", ["a", "x", "y"])
    publish_texts(session, "told", ["y"])
    rows = session.execute(chunk_history("told")).all()
    told = [(row.version_number, row.ordinal, row.event_type.value, row.content) for row in rows]
    assert told[:2] == [(1, 0, "added", "a"), (1, 1, "added", "b")]
    listed = [event for event in told if event[2] != "deleted"]
    assert [event[:2] for event in listed] == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert [event[3] for event in listed] == ["a", "b", "a", "x", "y", "y"]
    assert {event[3] for event in told if event[0] == 3 and event[2] == "deleted"} == {"a", "x"}
    assert [event[0] for event in told] == sorted(event[0] for event in told)
    assert session.execute(chunk_history("unheard of")).all() == []


def test_current_chunks_without_embedding_are_pending_the_oldest_first(
    session: Session, truth: Truth
) -> None:
    assert session.execute(pending_embeddings()).all() == []
    chosen = truth.ids[:3]
    for age, chunk in enumerate(chosen):
        session.execute(
            text(
                "UPDATE rag_chunks SET embedding = NULL, created_at = now() - :age * interval '1 day' WHERE id = :id"
            ),
            {"age": age, "id": chunk},
        )
    session.execute(
        text("UPDATE rag_chunks SET embedding = NULL WHERE NOT is_current")
    )  # history waits for nothing
    rows = session.execute(pending_embeddings()).all()
    assert [row.chunk_id for row in rows] == chosen[::-1]
    expected = [
        (truth.rows[chunk].article_id, "model-1", truth.rows[chunk].content) for chunk in chosen[::-1]
    ]
    assert [tuple(row)[1:] for row in rows] == expected
    assert session.scalars(pending_embeddings(limit=1)).all() == [chosen[2]]


# Async.


def test_async_sessions_search_alike(database: Database, session: Session, questions: list[Vector]) -> None:
    statements = [
        nearest_chunks(questions[0], limit=60),
        nearest_chunks(questions[0], article_ids=["article-3"]),
        hybrid_search(questions[0], "word21"),
        version_chunks(current_id(session, "article-3")),
        chunk_history("article-3"),
        pending_embeddings(),
    ]

    async def main() -> None:
        engine = create_async_engine(database.libpq_url())
        try:
            async with AsyncSession(engine) as found:
                await found.run_sync(search_settings, ef_search=200)
                assert await found.run_sync(setting, "ef_search") == "200"
                search_settings(session, ef_search=200)
                for statement in statements:
                    assert (await found.execute(statement)).all() == session.execute(statement).all()
        finally:
            await engine.dispose()

    asyncio.run(main())
