"""Searches of the documents that a condition or metadata lets through, for every share of them, against brute force."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import query_data
from conftest import connect, made_database, make_engine
from model_data import make_model
from plan_scans import indexes_read, scans
from ragschema import (
    Chunk,
    ChunkEvent,
    Document,
    DocumentVersion,
    QueryError,
    hybrid_search,
    nearest_chunks,
)
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector
from ragschema.queries import nearest, vector_hits
from skewed_data import Corpus, fill

DOCUMENTS = 3_300  # of one chunk each; a tenth of them is more than a narrow filter takes

# "permille" says nothing of where a document's chunk is, "cluster" everything.
_DESCRIBED = """
UPDATE rag_document_versions SET metadata = v.metadata
FROM (
  SELECT id, jsonb_build_object(
    'permille', abs(hashtext(number::text)) % 1000, 'cluster', number % 100,
    'tags', jsonb_build_array('t' || number % 7, 'all')
  ) AS metadata
  FROM (SELECT id, substr(url, 21)::int AS number FROM rag_document_versions OFFSET 0) v OFFSET 0
) v
WHERE v.id = rag_document_versions.id AND version_number = 2
"""


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """One database for the module: every test rolls back."""
    with made_database(server, template) as database:
        with connect(database) as connection:
            query_data.fill(connection, documents=DOCUMENTS, chunks=1)
            connection.execute("SET session_replication_role = replica")
            connection.execute(_DESCRIBED.encode())
            connection.execute("SET session_replication_role = origin")
            make_model(database, connection, "small", 24, state="standby")
            connection.execute("VACUUM ANALYZE")
        yield database


engine = pytest.fixture(scope="module")(make_engine)


@dataclass(frozen=True)
class Truth:
    """The current chunks with what is said of their documents, read without the statements that are tested."""

    ids: list[UUID]
    metadata: list[dict[str, Any]]
    embeddings: Vector
    of_model: Vector

    def nearest(self, query: Vector, passes: Callable[[dict[str, Any]], bool], limit: int = 10) -> list[UUID]:
        embeddings = self.embeddings if len(query) == 768 else self.of_model
        order = np.argsort(-(embeddings @ query))
        return [self.ids[place] for place in order if passes(self.metadata[place])][:limit]

    def recall(
        self,
        session: Session,
        queries: list[Vector],
        search: Callable[[Vector], sa.Select[*tuple[Any, ...]]],
        passes: Callable[[dict[str, Any]], bool],
    ) -> float:
        """Return what share of the nearest is found; as many rows come as there can be."""
        shares = []
        for query in queries:
            expected = self.nearest(query, passes)
            found = session.scalars(search(query)).all()
            assert len(found) == len(expected)
            shares.append(len({*found} & {*expected}) / len(expected))
        return float(np.mean(shares))


@pytest.fixture(scope="module")
def truth(engine: sa.Engine) -> Truth:
    statement = sa.text(
        """
        SELECT c.id, v.metadata, c.embedding::real[] AS embedding, e.embedding::real[] AS of_model
        FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id
        JOIN rag_chunks c ON c.version_id = v.id JOIN rag_chunk_embeddings e ON e.chunk_id = c.id
        """
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).all()
    assert len(rows) == DOCUMENTS
    embeddings = [
        np.array([getattr(row, name) for row in rows], np.float32) for name in ("embedding", "of_model")
    ]
    for each in embeddings:
        each /= np.linalg.norm(each, axis=1, keepdims=True)
    return Truth([row.id for row in rows], [row.metadata for row in rows], *embeddings)


@pytest.fixture(scope="module")
def queries(truth: Truth) -> list[Vector]:
    chosen = truth.embeddings[np.random.default_rng(7).integers(DOCUMENTS, size=12)]
    return list(chosen + np.random.default_rng(8).normal(0, 0.01, chosen.shape).astype(np.float32))


def explain(session: Session, statement: sa.Select[*tuple[Any, ...]]) -> dict[str, Any]:
    def ask(*arguments: Any) -> tuple[str, Any]:
        return "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF, BUFFERS OFF) " + arguments[2], arguments[3]

    connection = session.connection()
    sa.event.listen(connection, "before_cursor_execute", ask, retval=True)
    try:
        cursor = connection.execute(statement).cursor
        assert cursor is not None
        (((explained,),),) = cursor.fetchall()
        plan: dict[str, Any] = explained["Plan"]
    finally:
        sa.event.remove(connection, "before_cursor_execute", ask)
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        yield from nodes(each)


PERMILLE = DocumentVersion.details["permille"].as_integer()
CLUSTER = DocumentVersion.details["cluster"].as_integer()
SHARES = [1, 10, 100, 500]


@pytest.mark.parametrize("permille", SHARES)
def test_every_share_of_documents_is_searched_to_the_limit(
    session: Session, truth: Truth, queries: list[Vector], permille: int
) -> None:
    condition = permille > PERMILLE
    of_model = list(np.random.default_rng(9).normal(0, 1, (6, 24)).astype(np.float32))

    def passes(metadata: dict[str, Any]) -> bool:
        return bool(metadata["permille"] < permille)

    for search, asked in (
        (lambda query: nearest_chunks(query, where=condition), queries),
        (lambda query: hybrid_search(query, None, where=condition), queries),
        (lambda query: nearest_chunks(query, where=condition, model="small"), of_model),
    ):
        assert truth.recall(session, asked, search, passes) >= 0.95


@pytest.mark.parametrize("clusters", [10, 50])
def test_documents_that_are_near_each_other_are_searched_to_the_limit(
    session: Session, truth: Truth, clusters: int
) -> None:
    def passes(metadata: dict[str, Any]) -> bool:
        return bool(metadata["cluster"] < clusters)

    inside = [vector for vector, of in zip(truth.embeddings, truth.metadata, strict=True) if passes(of)]
    asked = inside[:: len(inside) // 12]
    assert (
        truth.recall(session, asked, lambda each: nearest_chunks(each, where=clusters > CLUSTER), passes)
        >= 0.95
    )


@pytest.mark.parametrize(
    ("metadata", "passes"),
    [
        ({"permille": 6}, lambda of: of["permille"] == 6),
        ({"cluster": 7}, lambda of: of["cluster"] == 7),
        ({"tags": ["t3"]}, lambda of: "t3" in of["tags"]),
        ({"tags": ["all"], "cluster": 7}, lambda of: of["cluster"] == 7),
        ({}, lambda of: True),
    ],
)
def test_metadata_is_contained_in_that_of_the_current_version(
    session: Session, truth: Truth, queries: list[Vector], metadata: dict[str, Any], passes: Any
) -> None:
    assert (
        truth.recall(session, queries, lambda each: nearest_chunks(each, metadata=metadata), passes) >= 0.95
    )
    hits = session.scalars(hybrid_search(queries[0], "common", limit=50, metadata=metadata)).all()
    assert {*hits} <= {id for id, of in zip(truth.ids, truth.metadata, strict=True) if passes(of)}


def test_metadata_is_and_ed_with_other_filters(session: Session, queries: list[Vector]) -> None:
    articles = [f"article-{number}" for number in (7, 107, 8)]

    def found(**filters: Any) -> set[str]:
        return {hit.article_id for hit in session.execute(nearest_chunks(queries[0], **filters))}

    assert found(metadata={"cluster": 7}, article_ids=articles) == {"article-7", "article-107"}
    assert found(metadata={"cluster": 7}, where=Document.article_id == "article-107") == {"article-107"}
    assert found(metadata={"cluster": 7}, where=Chunk.content.like("%article 107 cut%")) == {"article-107"}
    assert found(metadata={"cluster": "7"}) == set()
    assert found(metadata={"cluster": 7}, article_ids=[]) == set()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([("cluster", 7)], "metadata is list, not a dict"),
        ({"cluster": {7}}, "metadata cannot be JSON"),
        ({"cluster": float("nan")}, "metadata cannot be JSON"),
        ({"a": "\0"}, "metadata has a NUL"),
        ({"a": "\ud800"}, "metadata cannot be JSON"),
    ],
)
def test_metadata_that_is_no_json_is_refused_at_once(metadata: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        nearest_chunks([1.0] * 768, metadata=metadata)


def rows_of_chunks(session: Session, statement: sa.Select[*tuple[Any, ...]]) -> int:
    """Return how many rows of chunks and of their events a statement's plan reads."""
    explained = explain(session, statement)
    return sum(
        round(node["Actual Rows"] * node["Actual Loops"]) + node.get("Rows Removed by Filter", 0)
        for node in nodes(explained)
        if node.get("Relation Name") in ("rag_chunks", "rag_chunk_events", "rag_chunk_embeddings_2")
    )


def test_no_more_chunks_are_read_than_those_of_few_documents(session: Session, queries: list[Vector]) -> None:
    """Though all that PostgreSQL knows of the condition is a guess."""
    for permille, most in ((1, 50), (10, 250), (80, 1_700)):
        for model, query in (("default", queries[0]), ("small", np.ones(24, np.float32))):
            asked = nearest_chunks(query, where=permille > PERMILLE, model=model)
            assert rows_of_chunks(session, asked) <= most


def test_versions_without_events_are_found(session: Session, truth: Truth, queries: list[Vector]) -> None:
    """Of services that write chunks and versions only; a version whose every chunk was deleted has none."""
    expected = truth.nearest(queries[0], lambda of: of["cluster"] == 7)
    session.execute(sa.delete(ChunkEvent).where(ChunkEvent.chunk_id.in_(expected[:5])))
    session.execute(sa.text("SET LOCAL session_replication_role = replica"))
    session.execute(
        sa.update(ChunkEvent).where(ChunkEvent.chunk_id == expected[5]).values(event_type="deleted")
    )
    session.execute(sa.update(Chunk).where(Chunk.id == expected[5]).values(is_current=False))
    hits = session.scalars(nearest_chunks(queries[0], limit=9, metadata={"cluster": 7})).all()
    assert (
        hits
        == [id for id in truth.nearest(queries[0], lambda of: of["cluster"] == 7) if id != expected[5]][:9]
    )


CONDITIONS: dict[str, tuple[Callable[[], Any], Callable[[str, int], bool]]] = {
    "of the chunk": (
        lambda: Chunk.content.contains("article 107 "),
        lambda content, _: "article 107 " in content,
    ),
    "as text": (
        lambda: sa.text("content LIKE '%article 107 %'"),
        lambda content, _: "article 107 " in content,
    ),
    "with a colon and a percent sign": (
        lambda: sa.literal_column("' :x % \\:y'") == " :x % \\:y",
        lambda _, cluster: True,
    ),
    "of both": (
        lambda: sa.and_(CLUSTER == 7, Chunk.content.contains("article 107 ")),
        lambda content, _: "article 107 " in content,
    ),
    "of either": (
        lambda: sa.or_(CLUSTER == 7, Chunk.content.contains("article 108 ")),
        lambda content, cluster: cluster == 7 or "article 108 " in content,
    ),
    "in a list": (
        lambda: DocumentVersion.title.in_(["Title 7", "Title 8"]),
        lambda _, cluster: cluster in (7, 8),
    ),
    "in an empty list": (lambda: DocumentVersion.title.in_([]), lambda *_: False),
    "in no empty list": (lambda: DocumentVersion.title.not_in([]), lambda *_: True),
    "of a subquery": (
        lambda: Document.id.in_(
            sa.select(DocumentVersion.document_id).where(DocumentVersion.title == "Title 7")
        ),
        lambda _, cluster: cluster == 7,
    ),
    "of a relationship": (
        lambda: Document.versions.any(DocumentVersion.title == "Title 7"),
        lambda _, cluster: cluster == 7,
    ),
    "of JSON": (
        lambda: DocumentVersion.details.op("@?")(
            sa.cast("$.cluster ? (@ == 7)", sa.dialects.postgresql.JSONPATH)
        ),
        lambda _, cluster: cluster == 7,
    ),
    "a function": (lambda: lambda: CLUSTER == 7, lambda _, cluster: cluster == 7),
    "a value that is asked late": (
        lambda: sa.bindparam(None, callable_=lambda: 7, type_=sa.Integer()) == CLUSTER,
        lambda _, cluster: cluster == 7,
    ),
    "a list that is asked late": (
        lambda: CLUSTER.in_(sa.bindparam("late", callable_=lambda: [7, 8], expanding=True)),
        lambda _, cluster: cluster in (7, 8),
    ),
    "true": (lambda: True, lambda *_: True),
}


@pytest.mark.parametrize(("condition", "passes"), CONDITIONS.values(), ids=CONDITIONS)
def test_any_condition_is_a_filter(
    session: Session, condition: Any, passes: Callable[[str, int], bool]
) -> None:
    rows = session.execute(sa.text("SELECT id, content FROM rag_chunks WHERE is_current")).all()
    content = {row.id: row.content for row in rows}
    expected = {id for id, text in content.items() if passes(text, int(text.split()[4]) % 100)}
    query = np.ones(768, np.float32)
    for statement in (
        nearest_chunks(query, limit=60, where=condition()),
        hybrid_search(query, "running", limit=60, where=condition()),
    ):
        found = session.scalars(statement).all()
        assert len({*found}) == len(found) == min(60, len(expected))
        assert {*found} <= expected


def test_statements_are_built_once_for_a_shape_and_keep_no_value(
    session: Session, queries: list[Vector], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Upper(sa.types.TypeDecorator[str]):
        impl = sa.Text
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            return value.upper()

    def find(title: Any) -> set[str | None]:
        statement = nearest_chunks(queries[0], where=DocumentVersion.title == title)
        return {hit.title for hit in session.execute(statement)}

    sent: list[str] = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    built: list[int] = []
    build = vector_hits.vector_hits

    def count(*given: Any, **more: Any) -> Any:
        built.append(1)
        return build(*given, **more)

    monkeypatch.setattr(nearest, "vector_hits", count)
    assert [find(f"Title {number}") for number in (7, 8, 9)] == [{f"Title {number}"} for number in (7, 8, 9)]
    assert len(built) <= 1
    assert len({*sent}) == 1
    assert "Title" not in sent[0]
    session.execute(sa.update(DocumentVersion).values(title=sa.func.upper(DocumentVersion.title)))
    assert find(sa.bindparam(None, "Title 7", type_=Upper())) == {"TITLE 7"}
    titles = iter(["Title 8", "Title 9"])
    late = sa.bindparam(None, callable_=lambda: next(titles), type_=Upper())
    assert find(late) == {"TITLE 8"}
    assert find(late) == {"TITLE 9"}


def test_a_caller_may_give_values_when_the_statement_is_executed(
    session: Session, queries: list[Vector]
) -> None:
    given: sa.BindParameter[Any]
    for given in (sa.bindparam("asked"), sa.bindparam("asked", "Title 1")):
        statement = nearest_chunks(queries[0], where=DocumentVersion.title == given)
        assert {hit.title for hit in session.execute(statement, {"asked": "Title 7"})} == {"Title 7"}
    assert {hit.title for hit in session.execute(statement)} == {"Title 1"}


def test_a_condition_without_a_key_is_built_anew(session: Session, queries: list[Vector]) -> None:
    class Wrapped(sa.types.UserDefinedType[str]):
        cache_ok = False

        def get_col_spec(self, **_: Any) -> str:
            return "text"

        def bind_expression(self, bindvalue: Any) -> Any:
            return sa.func.initcap(bindvalue)

    for title in ("Title 7", "Title 8"):
        condition = DocumentVersion.title == sa.bindparam(None, title.lower(), type_=Wrapped())
        hits = session.execute(nearest_chunks(queries[0], where=condition)).all()
        assert {hit.title for hit in hits} == {title}


@contextmanager
def restricted_reader(database: Database, table: str, condition: str) -> Iterator[str]:
    """Make a role that reads of a table what a policy says; committed, since a node of Citus must know it too."""
    role = f"reader_of_{table}_{os.getpid()}"  # not twice the same: sessions of nodes are kept by their names
    with connect(database) as connection:
        ((schema,),) = connection.execute("SELECT current_schema()").fetchall()
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY own ON {table} FOR SELECT TO {role} USING ({condition})",
        ):
            connection.execute(statement.encode())
        try:
            yield role
        finally:
            for statement in (
                f"DROP POLICY own ON {table}",
                f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
                f"DROP OWNED BY {role}",
                f"DROP ROLE {role}",
            ):
                connection.execute(statement.encode())


@pytest.mark.parametrize("table", ["rag_chunks", "rag_documents"])
def test_a_search_that_falls_back_is_full_under_row_security(
    database: Database, engine: sa.Engine, truth: Truth, queries: list[Vector], table: str
) -> None:
    """A policy takes rows away that the statement knows nothing of, after the index or in a join."""
    own = {"rag_chunks": "content ~ ' article ([0-9]+0)?7 '", "rag_documents": "article_id ~ '-([0-9]+0)?7$'"}

    def passes(metadata: dict[str, Any]) -> bool:
        return bool(metadata["cluster"] == 7)

    with restricted_reader(database, table, own[table]) as role, Session(engine) as session:
        session.execute(sa.text(f"SET LOCAL ROLE {role}"))
        for asked in (queries, [np.ones(24, np.float32)]):
            assert (
                truth.recall(session, asked, lambda each: nearest_chunks(each, exact_fallback=True), passes)
                >= 0.95
            )
        fused = hybrid_search(queries[0], "running", limit=20, exact_fallback=True)
        assert len(session.execute(fused).all()) == 20
        if table == "rag_documents":
            assert len(session.execute(nearest_chunks(queries[0])).all()) < 10


def test_a_search_falls_back_to_no_exact_one_where_the_index_gives_enough(
    session: Session, queries: list[Vector]
) -> None:
    asked = nearest_chunks(queries[0], exact_fallback=True)
    assert rows_of_chunks(session, asked) < 500


def test_words_of_few_chunks_are_worked_out_once_and_of_more_never(
    server: Mapping[str, str], template: str
) -> None:
    """To work them out takes 65 us a chunk: of many they are read from the index, beside that of versions."""
    words, versions = "rag_chunks_current_words_idx", "rag_chunks_version_id_ordinal_key"
    worked_out = sa.text(
        "SELECT coalesce(pg_stat_get_xact_function_calls('rag_words(text, text)'::regprocedure), 0)"
    )
    with made_database(server, template) as database:
        with connect(database) as connection:
            fill(connection, Corpus(chunks=1_000, crowd=1_500, crowd_chunks=2))
        engine = sa.create_engine(
            database.url(), poolclass=sa.NullPool, connect_args={"prepare_threshold": 0}
        )
        for documents, mode in product((1, 10, 100, 200, 1_400), ("auto", "force_generic_plan")):
            numbers = [f"crowd-{number}" for number in range(documents)]
            asked: Any = {"article_ids": numbers}, {"where": DocumentVersion.title.in_(numbers)}
            for filters in asked:
                statement = hybrid_search(None, "text of the crowd 0", candidates=50, limit=50, **filters)
                with Session(engine) as session:
                    session.execute(sa.text(f"SET plan_cache_mode = {mode}"))
                    session.execute(sa.text("SET track_functions = 'all'"))
                    found = session.execute(statement).all()
                    chunks = 2 * (documents - 1)  # there is no crowd-0
                    assert len(found) == min(50, chunks)
                    assert session.scalar(worked_out) == (chunks if chunks <= 100 else 0), (documents, mode)
        with Session(engine) as session:
            asked = {"article_ids": ["target"]}, {"where": DocumentVersion.title == "target"}
            for filters in asked:
                statement = hybrid_search(None, "target", candidates=50, limit=50, **filters)
                assert {words, versions} <= indexes_read(scans(session, statement))
                assert len(session.execute(statement).all()) == 50
            few = scans(session, hybrid_search(None, "target", article_ids=["crowd-7"]))
            assert words not in indexes_read(few)
