"""Searches by embedding models: right rows for each distance and index, and no search of a model that is not meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import query_data
from conftest import connect, made_database, make_engine
from model_data import make_model
from plan_scans import Scan, generic_scans, indexes_read, scans
from publishing import over_asyncpg
from ragschema import (
    Chunk,
    ChunkEmbedding,
    DocumentVersion,
    EmbeddingError,
    EmbeddingModel,
    QueryError,
    hybrid_search,
    is_model_refused,
    nearest_chunks,
    search_settings,
)
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector
from ragschema.schema.embedding_models import Distance, IndexType

DOCUMENTS, CHUNKS = 300, 4
SHAPES: dict[str, tuple[int, Distance, IndexType]] = {
    "cosine of halfvec": (24, "cosine", "halfvec"),
    "l2 of halfvec": (25, "l2", "halfvec"),
    "inner product of halfvec": (26, "inner_product", "halfvec"),
    "cosine of vector": (27, "cosine", "vector"),
    "l2 of vector": (28, "l2", "vector"),
    "cosine of bits": (200, "cosine", "bit"),
    "inner product without an index": (29, "inner_product", "none"),
    "cosine without an index": (30, "cosine", "none"),
    "as many dimensions as the column": (768, "cosine", "halfvec"),
}


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """One database for the module: every test rolls back."""
    with made_database(server, template) as database:
        with connect(database) as connection:
            query_data.fill(connection, documents=DOCUMENTS, chunks=CHUNKS)
            for key, (dimensions, distance, index_type) in SHAPES.items():
                make_model(
                    database,
                    connection,
                    key,
                    dimensions,
                    distance=distance,
                    index_type=index_type,
                    state="building" if dimensions == 768 else "standby",
                )
            make_model(database, connection, "alike", 24, state="building")
        yield database


engine = pytest.fixture(scope="module")(make_engine)


@dataclass(frozen=True)
class Truth:
    """The embeddings of a model, compared by numpy."""

    ids: list[UUID]
    embeddings: Vector
    distance: str

    @classmethod
    def read(cls, session: Session, model: EmbeddingModel) -> Truth:
        rows = session.execute(
            sa.select(ChunkEmbedding.chunk_id, ChunkEmbedding.embedding).where(
                ChunkEmbedding.model_id == model.id
            )
        ).all()
        assert len(rows) == DOCUMENTS * CHUNKS
        return cls([row.chunk_id for row in rows], np.array([row.embedding for row in rows]), model.distance)

    def distances(self, query: Vector) -> Vector:
        products: Vector = self.embeddings @ query
        if self.distance == "cosine":
            products /= np.linalg.norm(self.embeddings, axis=1) * np.linalg.norm(query)
            return 1 - products
        distances: Vector = np.linalg.norm(self.embeddings - query, axis=1)
        return distances if self.distance == "l2" else -products


def find(session: Session, key: str) -> EmbeddingModel:
    model = session.scalars(sa.select(EmbeddingModel).where(EmbeddingModel.key == key)).one()
    session.expunge(model)
    return model


def query(dimensions: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(0, 0.3, dimensions).astype(np.float32)


def ways_to_name(session: Session, key: str) -> list[str | EmbeddingModel | None]:
    """Return how a model can be given: itself, and by its key or its dimension alone where that is enough."""
    dimensions, distance, index_type = SHAPES[key]
    by_name = distance == "cosine" and index_type in ("halfvec", "none")
    return [find(session, key), *[key] * by_name, *[None] * (by_name and dimensions != 768)]


@pytest.mark.parametrize("key", SHAPES)
def test_the_nearest_by_a_model_come_first_with_their_distances(session: Session, key: str) -> None:
    truth = Truth.read(session, find(session, key))
    for model in ways_to_name(session, key):
        found = 0
        for seed in range(8):
            asked = query(SHAPES[key][0], seed)
            distances = dict(zip(truth.ids, truth.distances(asked), strict=True))
            hits = session.execute(nearest_chunks(asked, model=model, limit=5)).all()
            assert [hit.distance for hit in hits] == pytest.approx(
                [distances[hit.chunk_id] for hit in hits], abs=2e-3
            )
            assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
            assert all(" of article " in hit.content and hit.version_number == 2 for hit in hits)
            found += len({hit.chunk_id for hit in hits} & {*sorted(distances, key=distances.__getitem__)[:5]})
        assert found >= (24 if SHAPES[key][2] == "bit" else 36), model  # of 40


def test_the_more_candidates_of_an_index_of_bits_are_compared_the_more_of_the_nearest_are_found(
    session: Session,
) -> None:
    model, other = find(session, "cosine of bits"), find(session, "cosine of halfvec")
    truth = Truth.read(session, model)
    found = dict.fromkeys((None, 20, 1000), 0)
    for seed in range(8):
        asked = query(200, seed)
        distances = dict(zip(truth.ids, truth.distances(asked), strict=True))
        for rerank in found:
            hits = session.execute(nearest_chunks(asked, model=model, limit=5, rerank=rerank)).all()
            found[rerank] += len(
                {hit.chunk_id for hit in hits} & {*sorted(distances, key=distances.__getitem__)[:5]}
            )
    assert found[20] < found[None] < found[1000]
    assert found[1000] >= 39  # of 40; two may be alike in float16
    few = nearest_chunks(query(200), model=model, limit=5, rerank=2)
    assert len(session.execute(few).all()) == 5
    dimensions = SHAPES["cosine of halfvec"][0]
    alike = [nearest_chunks(query(dimensions), model=other, rerank=rerank) for rerank in (None, 20)]
    assert str(alike[0]) == str(alike[1])


def test_a_scan_of_bits_goes_on_past_the_candidates_that_it_keeps(session: Session) -> None:
    search_settings(session, ef_search=20)
    model = find(session, "cosine of bits")
    wanted = nearest_chunks(query(200), model=model, rerank=100)
    index = f"rag_chunk_embeddings_{model.id}_idx"
    assert [scan.rows for scan in scans(session, wanted) if scan.index == index] == [100]


@pytest.mark.parametrize("rerank", [0, 10_001, True, 2.0])
def test_candidates_to_compare_are_one_to_ten_thousand(rerank: Any) -> None:
    with pytest.raises(QueryError, match="rerank is"):
        nearest_chunks(query(200), rerank=rerank)


ARTICLES = sa.text(
    "SELECT c.id, d.article_id FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id"
    " JOIN rag_documents d ON d.id = v.document_id WHERE c.is_current"
)
TITLES = [f"Title {number}" for number in range(10)]


@pytest.mark.parametrize("key", SHAPES)
def test_filters_of_a_model_leave_every_row_that_passes(session: Session, key: str) -> None:
    """Also where the index gives up before it has met them."""
    truth = Truth.read(session, find(session, key))
    articles = {row.id: row.article_id for row in session.execute(ARTICLES)}
    allowed = [f"article-{number}" for number in range(20)]
    asked = query(SHAPES[key][0])
    order = [truth.ids[place] for place in np.argsort(truth.distances(asked))]
    nearest = [each for each in order if articles[each] in allowed][:30]
    session.execute(sa.text("SET LOCAL hnsw.max_scan_tuples = 1"))
    for model in ways_to_name(session, key):
        hits = session.execute(nearest_chunks(asked, model=model, limit=30, article_ids=allowed)).all()
        assert len(hits) == 30
        assert len({hit.chunk_id for hit in hits} & {*nearest}) >= 29  # two may be alike in float16
        near = nearest_chunks(asked, model=model, article_ids=allowed, max_distance=hits[3].distance)
        assert [hit.chunk_id for hit in session.execute(near)] == [hit.chunk_id for hit in hits[:4]]
        titled = nearest_chunks(asked, model=model, limit=50, where=DocumentVersion.title.in_(TITLES))
        assert len(session.execute(titled).all()) == 50


def partitions(found: Iterable[str | None]) -> set[str]:
    return {table for table in found if table is not None and table.startswith("rag_chunk_embeddings_")}


@pytest.mark.parametrize("read", [scans, generic_scans])
@pytest.mark.parametrize("key", ["default", *(key for key in SHAPES if SHAPES[key][2] != "none"), "alike"])
def test_a_search_reads_the_index_of_its_model_and_no_embedding_of_another(
    session: Session, key: str, read: Callable[[Session, Any], list[Scan]]
) -> None:
    """Those of other dimensions are not even planned for, so that five models cost no more than one."""
    model = find(session, key)
    own = f"rag_chunk_embeddings_{model.id}"
    alike = {
        f"rag_chunk_embeddings_{id}"
        for id in session.scalars(sa.select(EmbeddingModel.id).filter_by(dimensions=model.dimensions))
    }
    asked = query(model.dimensions)
    by_key = model.distance == "cosine" and (model.index_type == "halfvec" or key == "default")
    ways: list[str | EmbeddingModel] = [model, *[key] * by_key]
    for named in ways:
        for statement in (
            nearest_chunks(asked, model=named),
            nearest_chunks(asked, model=named, where=Chunk.ordinal < 4),
            hybrid_search(asked, "word42", model=named),
        ):
            found = read(session, statement)
            if key != "default":  # what is read of the column is in test_query_plans.py
                assert f"{own}_idx" in indexes_read(found)
            read_of = partitions(scan.table for scan in found if scan.was_executed)
            assert read_of == (set() if key == "default" else {own})
            assert partitions(scan.table for scan in found) <= alike


@dataclass(frozen=True)
class Refusal:
    """A search that the database refuses.

    Attributes:
        dimensions: Of the query.
        model: A key, or what makes a model of the first one.
        before: What is done to the registry.
        message: What the error says.
    """

    dimensions: int
    model: str | Callable[[EmbeddingModel], EmbeddingModel] | None
    before: str
    message: str


FIRST = "cosine of halfvec"


def itself(model: EmbeddingModel) -> EmbeddingModel:
    return model


def of_another_index(model: EmbeddingModel) -> EmbeddingModel:
    return EmbeddingModel(id=model.id, key=FIRST, dimensions=24, distance="l2", index_type="vector")


REFUSALS = {
    "an unknown key": Refusal(24, "nobody", "", "There is no embedding model nobody."),
    "a dimension of no model": Refusal(
        31, None, "", "No embedding model of 31 dimensions is active or standby."
    ),
    "a model being built, not named": Refusal(
        24,
        None,
        "UPDATE rag_embedding_models SET state = 'building' WHERE dimensions = 24",
        "No embedding model of 24 dimensions is active or standby.",
    ),
    "two models, none named": Refusal(
        768,
        None,
        "UPDATE rag_embedding_models SET state = 'standby'",
        "2 embedding models of 768 dimensions can be searched, and the search names none.",
    ),
    "a retired model": Refusal(
        24,
        FIRST,
        "UPDATE rag_embedding_models SET state = 'retired' WHERE dimensions = 24",
        f"The embedding model {FIRST} is retired: its embeddings are gone.",
    ),
    "another dimension": Refusal(
        768, FIRST, "", f"The embedding model {FIRST} has 24 dimensions, the query has 768."
    ),
    "another distance": Refusal(
        25,
        "l2 of halfvec",
        "",
        "The embedding model l2 of halfvec is searched by l2 and an index of halfvec, the search is by cosine and"
        " halfvec.",
    ),
    "a model as it never was": Refusal(
        24,
        of_another_index,
        "",
        f"The embedding model {FIRST} is searched by cosine and an index of halfvec, the search is by l2 and vector.",
    ),
    "a model that was added anew": Refusal(
        24,
        itself,
        "UPDATE rag_embedding_models SET id = 99 WHERE key = 'cosine of halfvec'",
        f"The embedding model {FIRST} was dropped and added again since it was read.",
    ),
    "another dimension than the column's": Refusal(
        24,
        None,
        "DELETE FROM rag_embedding_models",
        "No embedding model is registered, and the query has 24 dimensions where the column rag_chunks.embedding"
        " has 768.",
    ),
    "a key where none is registered": Refusal(
        768, "nobody", "DELETE FROM rag_embedding_models", "There is no embedding model nobody."
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_search_of_no_model_is_refused_and_told_from_other_errors(
    session: Session, refusal: Refusal
) -> None:
    model = refusal.model(find(session, FIRST)) if callable(refusal.model) else refusal.model
    if refusal.before:
        session.execute(sa.text(refusal.before))
    asked = query(refusal.dimensions)
    for statement in (
        nearest_chunks(asked, model=model),
        nearest_chunks(asked, model=model, document_ids=[]),
        hybrid_search(asked, "article", model=model),
    ):
        with pytest.raises(DBAPIError) as caught, session.begin_nested():
            session.execute(statement).all()
        assert is_model_refused(caught.value)
        assert refusal.message in str(caught.value)
        assert "HINT:" in str(caught.value)


def test_another_error_is_none_of_a_model(session: Session) -> None:
    with pytest.raises(DBAPIError) as caught:
        session.execute(sa.text("SELECT 1 / 0"))
    assert not is_model_refused(caught.value)


def test_what_a_model_cannot_be_asked_is_refused_at_once(session: Session) -> None:
    with pytest.raises(EmbeddingError, match=f"has 3 dimensions, the model '{FIRST}' has 24"):
        nearest_chunks([1.0] * 3, model=find(session, FIRST))
    with pytest.raises(EmbeddingError, match=r"holds 1e\+06; halfvec takes"):
        nearest_chunks([1e6] * 25, model=find(session, "l2 of halfvec"))
    with pytest.raises(EmbeddingError, match="has 17000 dimensions"):
        nearest_chunks([1.0] * 17000)
    with pytest.raises(QueryError, match="'new' was not read from the database"):
        nearest_chunks([1.0] * 3, model=EmbeddingModel(key="new", dimensions=3))
    with pytest.raises(QueryError, match="model of a search is a int"):
        nearest_chunks([1.0] * 3, model=4)  # type: ignore[arg-type]


def test_a_query_by_cosine_may_have_any_length(session: Session) -> None:
    """Also one that float16 cannot hold: it is compared with length 1."""
    asked = query(24)
    few, many = (
        session.scalars(nearest_chunks(asked * np.float32(factor), model=FIRST)).all()
        for factor in (1e-7, 1e7)
    )
    assert few == many
    large = query(768) * np.float32(1e6)  # where the column may be meant, the server does that
    for model in ("default", "as many dimensions as the column"):
        assert len(session.execute(nearest_chunks(large, model=model)).all()) == 10


def test_where_none_is_registered_the_column_is_the_model(session: Session) -> None:
    asked = query(768)
    named = session.execute(nearest_chunks(asked, model="default")).all()
    given = session.execute(nearest_chunks(asked, model=find(session, "default"))).all()
    session.execute(sa.text("DELETE FROM rag_embedding_models"))
    assert session.execute(nearest_chunks(asked)).all() == named == given
    assert session.execute(nearest_chunks(asked, model="default")).all() == named


def test_old_chunks_and_those_that_a_model_will_not_embed_are_left_out(session: Session) -> None:
    asked = query(24)
    first, second = session.scalars(nearest_chunks(asked, model=FIRST, limit=2)).all()
    old = sa.text("UPDATE rag_chunks SET is_current = false WHERE id = :id")
    session.execute(old, {"id": first})
    refused = (
        "UPDATE rag_chunk_embeddings SET embedding = NULL, embedding_error = 'too long' WHERE chunk_id = :id"
    )
    session.execute(sa.text(refused), {"id": second})
    for model in ways_to_name(session, FIRST):
        for where in (None, sa.true()):
            hits = session.scalars(nearest_chunks(asked, model=model, where=where)).all()
            assert len(hits) == 10
            assert not {first, second} & {*hits}


def test_both_sides_of_a_hybrid_search_are_fused_by_the_vectors_of_a_model(session: Session) -> None:
    asked, text = query(24), "article 7 cut at 1"
    near = session.scalars(nearest_chunks(asked, model=FIRST, limit=40)).all()
    worded = session.scalars(hybrid_search(None, text, limit=40)).all()
    hits = session.execute(hybrid_search(asked, text, model=FIRST, limit=40)).all()
    by_distance = {hit.distance_rank: hit.chunk_id for hit in hits if hit.distance_rank is not None}
    by_words = {hit.text_rank: hit.chunk_id for hit in hits if hit.text_rank is not None}
    assert min(len(by_distance), len(by_words)) > 10
    assert all(near[rank - 1] == chunk for rank, chunk in by_distance.items())
    assert all(worded[rank - 1] == chunk for rank, chunk in by_words.items())


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_models_are_searched_over_each_driver(database: Database, session: Session, driver: str) -> None:
    asked = [(query(SHAPES[key][0]), model) for key in SHAPES for model in ways_to_name(session, key)]
    expected = [list(session.scalars(nearest_chunks(each, model=model))) for each, model in asked]

    async def search() -> None:
        engine = create_async_engine(database.url() if driver == "psycopg" else over_asyncpg(database))
        async with AsyncSession(engine) as own:
            for _ in range(7):  # by then it is prepared
                for (each, model), hits in zip(asked, expected, strict=True):
                    assert list(await own.scalars(nearest_chunks(each, model=model))) == hits
                among = nearest_chunks(query(24), model=FIRST, article_ids=["article-1"], max_distance=2)
                assert len(list(await own.scalars(among))) == CHUNKS
            with pytest.raises(DBAPIError) as caught:
                await own.execute(nearest_chunks(query(24), model="nobody"))
            assert is_model_refused(caught.value)
        await engine.dispose()

    asyncio.run(search())
