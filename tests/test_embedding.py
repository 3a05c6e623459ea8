"""The embedding type: refuses before the round trip, binary on the wire, pgvector's results."""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pgvector.psycopg
import pgvector.sqlalchemy
import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from pgvector.sqlalchemy import VECTOR
from psycopg.pq import Trace
from sqlalchemy import bindparam, cast, event, func, insert, select, text, update
from sqlalchemy.exc import CompileError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from conftest import ROOT, Command, make_database, make_engine
from ragschema import (
    Base,
    Chunk,
    Document,
    DocumentVersion,
    Embedding,
    EmbeddingError,
    EmbeddingModel,
    RagSchemaError,
    create_async_engine,
    nearest_chunks,
)
from ragschema.database.settings import Database
from ragschema.embeddings import wire as wire_format
from ragschema.embeddings.half_column_type import HalfEmbedding
from ragschema.migrations import autogenerate

NUMBERS = np.random.default_rng(7).standard_normal((6, 768)).astype(np.float32)
FIRST = NUMBERS[0]
TABLE = Base.metadata.tables["rag_chunks"]
COLUMN = EmbeddingModel(id=1, key="default", dimensions=768, distance="cosine", index_type="vector")


# One database for the module: every test rolls back, or looks at its own version only.
database = pytest.fixture(scope="module")(make_database)


engine = pytest.fixture(scope="module")(make_engine)


def add_version(session: Session, *, is_current: bool = True) -> DocumentVersion:
    version = DocumentVersion(version_number=1, source_hash="h", chunker_version="c", embedder_version="e")
    version.document = Document(article_id=str(uuid4()), current_version=version if is_current else None)
    session.add(version)
    session.flush()
    return version


@pytest.fixture
def version_id(session: Session) -> UUID:
    return add_version(session).id


def row(version_id: UUID, embedding: object, ordinal: int = 0) -> dict[str, Any]:
    return {"version_id": version_id, "ordinal": ordinal, "content": "text", "embedding": embedding}


def flush(session: Session, chunks: list[Chunk]) -> list[Chunk]:
    session.add_all(chunks)
    session.flush()
    return chunks


def add_chunks(session: Session, version_id: UUID, embeddings: object = NUMBERS) -> None:
    rows = [row(version_id, value, place) for place, value in enumerate(np.asarray(embeddings))]
    session.execute(insert(Chunk), rows)


@contextmanager
def recorded(engine: sa.Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(engine, "before_cursor_execute", record)
    yield statements
    event.remove(engine, "before_cursor_execute", record)


# What it takes.

ACCEPTED = {
    "float list": [0.1] * 768,
    "int list": list(range(768)),
    "list of ints and floats": [1, 0.5] * 384,
    "list of float32": list(FIRST),
    "tuple": tuple(FIRST.tolist()),
    "float32": FIRST,
    "float64": FIRST.astype(np.float64) + 1e-12,
    "float16": FIRST.astype(np.float16),
    "int64": np.arange(768),
    "uint8": np.arange(768, dtype=np.uint8),
    "big-endian": FIRST.astype(">f4"),
    "every second": NUMBERS[:2].reshape(-1)[::2],
    "reversed": FIRST[::-1],
    "a column": np.asfortranarray(NUMBERS)[1],
    "smallest and largest": [float(np.finfo(np.float32).smallest_subnormal), 1e18, 0, -0.0] * 192,
    "below float32": [0.5, *[1e-60] * 767],
}


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_numbers_come_back_as_float32_arrays(session: Session, version_id: UUID, value: Any) -> None:
    session.add(Chunk(**row(version_id, value)))
    session.flush()
    session.expire_all()
    found = session.scalars(select(Chunk.embedding).filter_by(version_id=version_id)).one()
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, np.asarray(value).astype(np.float32), strict=True)
    assert found.dtype.isnative
    assert found.flags.writeable


def test_a_zero_vector_is_refused_by_the_database(session: Session, version_id: UUID) -> None:
    """From services with their own SQL too: no distance to it is a number, and the index never returns it."""
    statement = text(
        "INSERT INTO rag_chunks (version_id, ordinal, content, embedding)"
        " VALUES (:version_id, 0, '', CAST(array_fill(0, ARRAY[768]) AS vector))"
    )
    with pytest.raises(IntegrityError, match="rag_chunks_embedding_check"):
        session.execute(statement, {"version_id": version_id})


def test_none_is_null(session: Session, version_id: UUID) -> None:
    session.execute(insert(Chunk), [row(version_id, None, 0), row(version_id, FIRST, 1)])
    session.add(Chunk(**row(version_id, None, 2)))
    session.flush()
    of_version = select(Chunk.embedding).filter_by(version_id=version_id).order_by(Chunk.ordinal)
    assert [found is None for found in session.scalars(of_version)] == [True, False, True]
    assert len(session.scalars(of_version.where(Chunk.embedding.is_(None))).all()) == 2


# What it refuses, and when.

REFUSED = {
    "short": ([0.5] * 3, r"^An embedding has 3 dimensions, the column takes 768\."),
    "long": (np.zeros(769, np.float32), r"^An embedding has 769 dimensions, the column takes 768\."),
    "empty": ([], r"has 0 dimensions, the column takes 768\."),
    "scalar": (0.5, r"has no dimensions, the column takes 768\."),
    "batch of one": (np.zeros((1, 768)), r"has 1x768 dimensions, the column takes 768\."),
    "nested list": ([[0.5] * 768] * 2, r"has 2x768 dimensions, the column takes 768\."),
    "NaN": ([*[0.5] * 767, float("nan")], r"768 dimensions holds nan at position 767; .* 768 finite"),
    "infinity": ([0.5, -np.inf, *[0.5] * 766], r"768 dimensions holds -inf at position 1; .* 768 finite"),
    "beyond float32": ([*[0.5] * 5, 1e39, *[0.5] * 762], r"holds 1e\+39 at position 5; .* 768 finite"),
    "zero": (np.zeros(768), r"^An embedding of 768 dimensions is zero, so no search by cosine"),
    "zero as float32": ([-1e-60] * 768, r"^An embedding of 768 dimensions is zero"),
    "ragged list": ([[0.5], [0.5, 0.5]], r"must be 768 real numbers, not list\."),
    "string": ("[" + ",".join(["0.5"] * 768) + "]", r"must be 768 real numbers, not str of "),
    "list of strings": (["0.5"] * 768, r"must be 768 real numbers, not list of <U3\."),
    "list with None": ([*[0.5] * 767, None], r"must be 768 real numbers, not list of object\."),
    "list of Decimal": ([Decimal("0.5")] * 768, r"must be 768 real numbers, not list of object\."),
    "beyond every float": ([10**400] * 768, r"must be 768 real numbers, not list of object\."),
    "complex": (np.zeros(768, np.complex64), r"must be 768 real numbers, not ndarray of complex64\."),
    "booleans": (np.zeros(768, bool), r"must be 768 real numbers, not ndarray of bool\."),
    "bytes": (b"\0" * 768, r"must be 768 real numbers, not bytes of "),
    "generator": ((0.5 for _ in range(768)), r"must be 768 real numbers, not generator of object\."),
    "dict": ({"embedding": [0.5] * 768}, r"must be 768 real numbers, not dict of object\."),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_an_embedding_is_refused_before_anything_is_sent(
    session: Session, version_id: UUID, engine: sa.Engine, value: Any, message: str
) -> None:
    with recorded(engine) as statements, pytest.raises(EmbeddingError, match=message):
        session.execute(insert(Chunk), row(version_id, value))
    assert statements == []


@pytest.mark.parametrize(
    "send",
    [
        lambda session, rows: flush(session, [Chunk(**values) for values in rows]),
        lambda session, rows: session.execute(insert(Chunk), rows),
        lambda session, rows: session.execute(insert(Chunk).returning(Chunk.id), rows),
        lambda session, rows: session.execute(insert(Chunk).values(rows)),
        lambda session, rows: session.connection().execute(insert(TABLE), rows),
        lambda session, rows: session.execute(update(Chunk).values(embedding=rows[-1]["embedding"])),
        lambda session, rows: session.scalars(nearest_chunks(rows[-1]["embedding"], model=COLUMN)),
    ],
    ids=["flush", "bulk", "bulk returning", "one statement", "core", "update", "query"],
)
@pytest.mark.parametrize("bad", [[0.5] * 3, [float("nan")] * 768], ids=["dimension", "NaN"])
def test_one_bad_value_among_many_is_refused_before_the_first_is_sent(
    session: Session,
    version_id: UUID,
    engine: sa.Engine,
    send: Callable[[Session, list[dict[str, Any]]], object],
    bad: list[float],
) -> None:
    values = [FIRST] * 4 + [bad]
    rows = [row(version_id, value, place) for place, value in enumerate(values)]
    with recorded(engine) as statements, pytest.raises(EmbeddingError, match="768"):
        send(session, rows)
    assert statements == []


def test_many_are_checked_at_once() -> None:
    np.testing.assert_array_equal(Embedding().check_all(NUMBERS.astype(np.float64)), NUMBERS, strict=True)
    np.testing.assert_array_equal(
        Embedding().check_all([row.tolist() for row in NUMBERS]), NUMBERS, strict=True
    )
    assert Embedding().check_all([]).shape == (0, 768)
    value: Any
    for value, message in REFUSED.values():
        with pytest.raises(EmbeddingError, match=message):
            Embedding().check_all([FIRST, value])
    for value in (np.nan, np.inf, 0):
        with pytest.raises(EmbeddingError, match="768"):
            Embedding().check_all(np.array([FIRST, np.full(768, value)]))


def test_the_error_is_our_own_and_a_value_error_and_not_wrapped(session: Session, version_id: UUID) -> None:
    session.add(Chunk(**row(version_id, [0.5])))
    with pytest.raises(ValueError, match="768") as caught:
        session.flush()
    assert isinstance(caught.value, RagSchemaError)
    assert not isinstance(caught.value, StatementError)
    assert caught.value.message == "An embedding has 1 dimensions, the column takes 768."
    assert caught.value.remedy


def test_numpy_told_to_raise_changes_nothing() -> None:
    with np.errstate(all="raise"):
        assert Embedding(2).check([1e-60, 1.0]).tolist() == [0.0, 1.0]
        with pytest.raises(EmbeddingError, match=r"1e\+60 at position 0"):
            Embedding(2).check([1e60, 1.0])


# What travels.


@contextmanager
def wire(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[list[str]]:
    """Record libpq's own trace of the protocol: one line a message, F from us, B from the server."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        connection.pgconn.trace(file.fileno())
        connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        yield lines
        connection.pgconn.untrace()
        file.seek(0)
        lines += file.read().decode().splitlines()


def raw(session: Session) -> psycopg.Connection[Any]:
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection


def is_sent_binary(lines: list[str], times: int) -> bool:
    """Whether a vector went out so often, each time as 4 + 4 * 768 bytes that begin with the dimension."""
    sent = [line for line in lines if line.startswith("F\t")]
    binary = sum(line.count(" 3076 '\\x03\\x00\\x00\\x00") for line in sent)
    return binary == times and not any(re.search(r"\[-?\d+\.\d+,", line) for line in sent)


WRITES: dict[str, Callable[[Session, UUID], object]] = {
    "flush": lambda session, version_id: flush(
        session, [Chunk(**row(version_id, FIRST, place)) for place in range(3)]
    ),
    "flush with ids": lambda session, version_id: flush(
        session, [Chunk(id=uuid4(), **row(version_id, FIRST, place)) for place in range(3)]
    ),
    "bulk": lambda session, version_id: add_chunks(session, version_id, NUMBERS[:3]),
    "bulk returning": lambda session, version_id: session.scalars(
        insert(Chunk).returning(Chunk.id), [row(version_id, FIRST, place) for place in range(3)]
    ).all(),
    "one statement": lambda session, version_id: session.execute(
        insert(Chunk).values([row(version_id, FIRST, place) for place in range(3)])
    ),
    "core": lambda session, version_id: session.connection().execute(
        insert(TABLE), [row(version_id, FIRST, place) for place in range(3)]
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_inserts_are_binary(
    session: Session, version_id: UUID, write: Callable[[Session, UUID], object]
) -> None:
    with wire(raw(session)) as lines:
        write(session, version_id)
    assert is_sent_binary(lines, times=3)
    assert session.scalar(select(func.count()).where(Chunk.version_id == version_id)) == 3


def test_updates_and_queries_are_binary(session: Session, version_id: UUID) -> None:
    add_chunks(session, version_id)
    with wire(raw(session)) as lines:
        session.execute(update(Chunk).filter_by(version_id=version_id, ordinal=1).values(embedding=FIRST))
        session.scalars(nearest_chunks(FIRST)).all()
        session.scalars(select(Chunk.id).where(Chunk.embedding.in_([FIRST]))).all()
        declared = text("SELECT id FROM rag_chunks WHERE embedding = :e").bindparams(
            bindparam("e", type_=Embedding())
        )
        session.scalars(declared, {"e": FIRST}).all()
    assert is_sent_binary(lines, times=4)


def test_reads_are_binary(session: Session, version_id: UUID) -> None:
    add_chunks(session, version_id)
    statement = select(Chunk.embedding).filter_by(version_id=version_id).order_by(Chunk.ordinal)
    with wire(raw(session)) as lines:
        at_once = session.scalars(statement).all()
        one_by_one = list(session.scalars(statement.execution_options(yield_per=1)))
        returned = session.scalars(
            update(Chunk)
            .filter_by(version_id=version_id, ordinal=0)
            .values(content="")
            .returning(Chunk.embedding)
        ).one()
    np.testing.assert_array_equal([*at_once, *one_by_one], [*NUMBERS, *NUMBERS])
    np.testing.assert_array_equal(returned, FIRST)
    rows = [line for line in lines if line.startswith("B\t") and "\tDataRow\t" in line]
    assert [" '\\x03000000" in line for line in rows] == [True] * 13
    assert any("DECLARE" in line for line in lines)


def test_async_sessions_are_binary(database: Database) -> None:
    async def main() -> None:
        engine = create_async_engine(database.libpq_url())
        try:
            async with AsyncSession(engine) as session:
                version = await session.run_sync(add_version)
                connection = (await (await session.connection()).get_raw_connection()).driver_connection
                assert isinstance(connection, psycopg.AsyncConnection)
                with wire(connection) as lines:
                    session.add_all(Chunk(**row(version.id, FIRST, place)) for place in range(2))
                    await session.flush()
                    await session.execute(insert(Chunk), row(version.id, FIRST, 2))
                    found = (await session.execute(nearest_chunks(FIRST, limit=1))).one()
                    chunk = await session.get_one(Chunk, found.chunk_id)
                    stream = await session.stream_scalars(select(Chunk).filter_by(version_id=version.id))
                    assert len([chunk async for chunk in stream]) == 3
                assert is_sent_binary(lines, times=4)
                assert (found.content, found.distance) == ("text", pytest.approx(0, abs=1e-6))
                np.testing.assert_array_equal(chunk.embedding, FIRST)
                with pytest.raises(EmbeddingError, match="3 dimensions, the column takes 768"):
                    await session.execute(insert(Chunk), row(version.id, [1, 2, 3]))
        finally:
            await engine.dispose()

    asyncio.run(main())


ENGINE_FIRST = """
import os, sys
import sqlalchemy as sa
if os.environ["MAKER"] == "sqlalchemy":
    engine = sa.create_engine(os.environ["URL"])
else:
    import ragschema
    engine = ragschema.create_engine(os.environ["DATABASE_URL"])
assert "ragschema.models" not in sys.modules
with engine.connect() as connection:  # pooled: the one that is used below
    connection.execute(sa.text("SELECT 1"))

from psycopg import Connection
from sqlalchemy.orm import Session
from ragschema import Chunk, Document, DocumentVersion, EmbeddingError
with Session(engine) as session:
    version = DocumentVersion(version_number=1, source_hash="h", chunker_version="c", embedder_version="e")
    version.document = Document(article_id="article")
    version.chunks = [Chunk(ordinal=0, content="text", embedding=[0.1] * 768)]
    session.add(version)
    sent = []
    sa.event.listen(engine, "before_cursor_execute", lambda *a: sent.append(a[3].get("embedding")))
    session.flush()
    (bound,) = filter(None, sent)
    session.expire_all()
    print(version.chunks[0].embedding[767], type(bound).__name__)
    version.chunks[0].embedding = [0.1]
    try:
        session.flush()
    except EmbeddingError as exc:
        print(exc.message)
engine.dispose()
"""


@pytest.mark.parametrize(("maker", "bound"), [("sqlalchemy", "str"), ("ragschema", "BinaryVector")])
def test_an_engine_made_before_the_import_works(
    run: Command, database: Database, maker: str, bound: str
) -> None:
    url = database.url().render_as_string(hide_password=False)
    result = run(
        "python", "-W", "error", "-c", ENGINE_FIRST, MAKER=maker, URL=url, DATABASE_URL=database.libpq_url()
    )
    assert result.returncode == 0, result.stderr
    refusal = "An embedding has 1 dimensions, the column takes 768."
    assert result.stdout.splitlines() == [f"0.1 {bound}", refusal]
    assert ("embeddings travel as text" in result.stderr) == (maker == "sqlalchemy")


def test_a_dialect_without_a_driver_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    from sqlalchemy.dialects.postgresql import psycopg as dialect

    with caplog.at_level(logging.WARNING):
        bare: sa.Dialect = dialect.dialect()  # type: ignore[no-untyped-call]
        compiled = select(Chunk.id).where(Chunk.embedding == FIRST).compile(dialect=bare)
    assert str(compiled).endswith("= %(embedding_1)s::VECTOR(768)")
    assert caplog.messages == []


def test_client_side_cursors_work(database: Database) -> None:
    engine = sa.create_engine(database.url(), connect_args={"cursor_factory": psycopg.ClientCursor})
    with Session(engine) as session:
        add_chunks(session, add_version(session).id)
        found = session.execute(nearest_chunks(FIRST, limit=1)).one()
        assert found.distance == pytest.approx(0, abs=1e-6)
        np.testing.assert_array_equal(session.get_one(Chunk, found.chunk_id).embedding, FIRST)
    engine.dispose()


def test_connections_with_pgvectors_own_adapters_work(database: Database) -> None:
    engine = sa.create_engine(database.url())
    event.listen(engine, "connect", lambda connection, _: pgvector.psycopg.register_vector(connection))
    with Session(engine) as session:
        version_id = add_version(session).id
        add_chunks(session, version_id, NUMBERS[:1])
        declared = text("SELECT embedding FROM rag_chunks WHERE version_id = :id")
        for statement in (
            select(Chunk.embedding).where(Chunk.version_id == bindparam("id")),
            declared.columns(embedding=Embedding()),
        ):
            found = session.scalars(statement, {"id": version_id}).one()
            np.testing.assert_array_equal(found, FIRST, strict=True)
    engine.dispose()


# What statements can do with it.

has_aggregates = pytest.mark.skipif(
    not hasattr(pgvector.sqlalchemy, "avg"), reason="pgvector-python has them since 0.3.5"
)
METHODS = {"l2_distance": "<->", "max_inner_product": "<#>", "cosine_distance": "<=>", "l1_distance": "<+>"}


@pytest.mark.parametrize("method", METHODS)
def test_distances_are_pgvectors(session: Session, version_id: UUID, method: str) -> None:
    add_chunks(session, version_id)
    theirs_type: Any = sa.type_coerce(Chunk.embedding, VECTOR(768))
    ours = getattr(Chunk.embedding, method)(FIRST)
    theirs = getattr(theirs_type, method)(FIRST)
    between = getattr(Chunk.embedding, method)(Chunk.embedding)
    of_version = select(ours, theirs, between).filter_by(version_id=version_id).order_by(Chunk.ordinal)
    found = session.execute(of_version).all()
    plain = text(
        f"SELECT embedding {METHODS[method]} CAST(:e AS vector) FROM rag_chunks WHERE version_id = :v ORDER BY ordinal"
    )
    expected = session.scalars(plain, {"e": str(FIRST.tolist()), "v": version_id}).all()
    assert [row[0] for row in found] == expected
    assert [row[1] for row in found] == expected
    assert {type(value) for row in found for value in row} == {float}
    assert len(set(expected)) == len(NUMBERS)
    nearest = select(Chunk.ordinal).filter_by(version_id=version_id).order_by(ours).limit(1)
    assert session.scalars(nearest).one() == expected.index(min(expected))


@has_aggregates
def test_averages_and_sums_are_pgvectors(session: Session, version_id: UUID) -> None:
    add_chunks(session, version_id)
    embedding = Chunk.embedding
    statement = select(
        pgvector.sqlalchemy.avg(embedding),
        func.avg(embedding, type_=Embedding()),
        pgvector.sqlalchemy.sum(embedding),
        func.sum(embedding),
    ).filter_by(version_id=version_id)
    with wire(raw(session)) as lines:
        means_and_sums = session.execute(statement).one()
    mean, sum_ = NUMBERS.mean(axis=0), NUMBERS.sum(axis=0)
    np.testing.assert_allclose(list(means_and_sums), [mean, mean, sum_, sum_], rtol=1e-4, atol=1e-5)
    assert {value.dtype for value in means_and_sums} == {np.dtype(np.float32)}
    theirs: Any = sa.type_coerce(embedding, VECTOR(768))
    in_text = select(pgvector.sqlalchemy.avg(theirs), pgvector.sqlalchemy.sum(theirs)).filter_by(
        version_id=version_id
    )
    np.testing.assert_array_equal(
        np.array(list(session.execute(in_text).one()), np.float32), means_and_sums[::2]
    )
    assert sum("\\x03000000" in line for line in lines) == 1


@has_aggregates
def test_the_average_of_no_rows_is_none(session: Session) -> None:
    assert (
        session.scalar(select(pgvector.sqlalchemy.avg(Chunk.embedding)).filter_by(version_id=uuid4())) is None
    )


def test_plain_sql_reads_it_when_declared(session: Session, version_id: UUID) -> None:
    add_chunks(session, version_id, NUMBERS[:1])
    for expression in ("embedding", "vector_send(embedding)"):
        plain = text(f"SELECT {expression} AS e, content FROM rag_chunks WHERE version_id = :v")
        found = session.execute(plain.columns(e=Embedding()), {"v": version_id}).one()
        np.testing.assert_array_equal(found.e, FIRST, strict=True)
    entities = select(Chunk).from_statement(text("SELECT * FROM rag_chunks WHERE version_id = :v"))
    np.testing.assert_array_equal(session.scalars(entities, {"v": version_id}).one().embedding, FIRST)


def written(version_id: UUID) -> Any:
    return insert(Chunk).values(row(version_id, NUMBERS[2], 10)).returning(Chunk.embedding)


def copied(chunks: sa.Select[Any]) -> Any:
    source = chunks.with_only_columns(Chunk.version_id, sa.literal(11), Chunk.content, Chunk.embedding)
    names = ["version_id", "ordinal", "content", "embedding"]
    return insert(Chunk).from_select(names, source).returning(Chunk.embedding)


# What to select from the chunks of a version, which have these embeddings, and what should come back.
STORED = [FIRST, FIRST, NUMBERS[1]]
SHAPES: dict[str, tuple[Callable[[sa.Select[Any], UUID], Any], list[Any]]] = {
    "subquery": (lambda chunks, _: select(chunks.order_by(Chunk.ordinal).subquery().c.embedding), STORED),
    "distinct": (lambda chunks, _: chunks.distinct(), STORED[1:]),
    "group by": (lambda chunks, _: chunks.group_by(Chunk.embedding), STORED[1:]),
    "union": (lambda chunks, _: chunks.union(chunks), STORED[1:]),
    "union all": (lambda chunks, _: chunks.limit(1).union_all(chunks.limit(1)), [FIRST, FIRST]),
    "scalar subquery": (lambda chunks, _: select(chunks.limit(1).scalar_subquery()), [FIRST]),
    "equal to a subquery": (
        lambda chunks, _: chunks.where(Chunk.embedding == chunks.limit(1).scalar_subquery()),
        [FIRST, FIRST],
    ),
    "not equal": (lambda chunks, _: chunks.where(Chunk.embedding != FIRST), [NUMBERS[1]]),
    "in": (lambda chunks, _: chunks.where(Chunk.embedding.in_([NUMBERS[1], NUMBERS[2]])), [NUMBERS[1]]),
    "farthest from a subquery": (
        lambda chunks, _: chunks.order_by(
            Chunk.embedding.l2_distance(chunks.limit(1).scalar_subquery()).desc()
        ).limit(1),
        [NUMBERS[1]],
    ),
    "plus": (
        lambda chunks, _: chunks.with_only_columns(Chunk.embedding + NUMBERS[2]).limit(1),
        [FIRST + NUMBERS[2]],
    ),
    "coalesce": (
        lambda chunks, _: chunks.with_only_columns(func.coalesce(Chunk.embedding, Chunk.embedding)),
        STORED,
    ),
    "cast": (lambda _, __: select(cast(NUMBERS[2], Embedding())), [NUMBERS[2]]),
    "literal": (lambda _, __: select(sa.literal(NUMBERS[2], Embedding())), [NUMBERS[2]]),
    "insert returning": (lambda _, version_id: written(version_id), [NUMBERS[2]]),
    "insert in a CTE": (lambda _, version_id: select(written(version_id).cte().c.embedding), [NUMBERS[2]]),
    "insert from select": (lambda chunks, _: copied(chunks.where(Chunk.ordinal == 2)), [NUMBERS[1]]),
    "delete returning": (
        lambda _, version_id: sa.delete(Chunk).filter_by(version_id=version_id).returning(Chunk.embedding),
        STORED,
    ),
}


@pytest.mark.parametrize(("shape", "expected"), SHAPES.values(), ids=SHAPES)
def test_it_passes_through_every_shape_of_statement(
    session: Session, version_id: UUID, shape: Callable[[sa.Select[Any], UUID], Any], expected: list[Any]
) -> None:
    add_chunks(session, version_id, STORED)
    found = session.scalars(shape(select(Chunk.embedding).filter_by(version_id=version_id), version_id)).all()
    np.testing.assert_array_equal(sorted(map(list, found)), sorted(map(list, expected)))
    assert {type(value) for value in found} == {np.ndarray}


def test_statements_are_compiled_once(session: Session) -> None:
    hits: list[str] = []
    event.listen(
        session.connection(),
        "before_cursor_execute",
        lambda *arguments: hits.append(arguments[4].cache_hit.name),
    )
    for embedding in NUMBERS[:3]:
        session.execute(select(Chunk.id).order_by(Chunk.embedding.cosine_distance(embedding)).limit(1))
    assert hits[1:] == ["CACHE_HIT", "CACHE_HIT"]


def test_statements_of_two_dimensions_do_not_share_a_cache(session: Session) -> None:
    for dim in (2, 3, 2):
        numbers = list(range(dim))
        assert session.scalars(select(cast(numbers, Embedding(dim)))).one().tolist() == numbers
    with pytest.raises(EmbeddingError, match="has 2 dimensions, the column takes 3"):
        session.scalar(select(cast([0, 1], Embedding(3))))


def test_literals_are_exact(session: Session, version_id: UUID) -> None:
    add_chunks(session, version_id)
    statement = select(Chunk.ordinal).where(Chunk.version_id == version_id, Chunk.embedding == NUMBERS[3])
    sql = str(statement.compile(session.connection().engine, compile_kwargs={"literal_binds": True}))
    assert session.connection().exec_driver_sql(sql.replace("%", "%%")).scalars().all() == [3]
    wrong = select(Chunk.id).where(Chunk.embedding == [1])
    with pytest.raises(CompileError) as caught:
        wrong.compile(session.connection().engine, compile_kwargs={"literal_binds": True})
    assert isinstance(caught.value.__cause__, EmbeddingError)


def test_setting_the_same_numbers_writes_nothing(
    session: Session, version_id: UUID, engine: sa.Engine
) -> None:
    chunk = Chunk(**row(version_id, [0.1] * 768))
    session.add(chunk)
    session.flush()
    sames: list[Any] = [[0.1] * 768, np.full(768, 0.1), np.full(768, 0.1, np.float32), (0.1,) * 768]
    for same in sames:
        session.refresh(chunk)
        with recorded(engine) as statements:
            chunk.embedding = same
            session.flush()
            session.merge(Chunk(id=chunk.id, **row(version_id, copy.copy(same))))
            session.flush()
        assert statements == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(FIRST, NUMBERS[1]), (FIRST, None), (None, FIRST)],
    ids=["value", "none", "from none"],
)
def test_setting_other_numbers_writes_them(
    session: Session, version_id: UUID, before: Any, after: Any
) -> None:
    chunk = Chunk(**row(version_id, before))
    session.add(chunk)
    session.flush()
    session.refresh(chunk)
    chunk.embedding = after
    session.flush()
    session.refresh(chunk)
    assert chunk.embedding is None if after is None else np.array_equal(chunk.embedding, after)


def test_setting_what_cannot_be_stored_or_is_sql_is_left_to_the_flush(
    session: Session, version_id: UUID
) -> None:
    chunk = Chunk(**row(version_id, FIRST))
    session.add(chunk)
    session.flush()
    session.refresh(chunk)
    chunk.embedding = func.l2_normalize(Chunk.embedding)
    session.flush()
    assert chunk.embedding is not None
    np.testing.assert_allclose(chunk.embedding, FIRST / np.linalg.norm(FIRST), rtol=1e-5)
    chunk.embedding = np.full(768, np.nan)
    assert session.is_modified(chunk)
    with pytest.raises(EmbeddingError, match="768 dimensions holds nan at position 0"):
        session.flush()


# Search.


def test_a_bound_embedding_uses_the_hnsw_index(session: Session, version_id: UUID) -> None:
    add_chunks(session, version_id)
    session.execute(text("SET LOCAL enable_seqscan = off"))
    plans: list[str] = []

    @event.listens_for(session.connection(), "before_cursor_execute", retval=True)
    def explain(*arguments: Any) -> tuple[str, Any]:
        return f"EXPLAIN {arguments[2]}", arguments[3]

    nearest = Chunk.embedding.cosine_distance(FIRST)
    statement = select(Chunk.id).where(Chunk.is_current).order_by(nearest).limit(2)
    plans += session.connection().execute(statement.with_only_columns(Chunk.content)).scalars().all()
    assert "Index Scan using rag_chunks_current_embedding_idx" in "\n".join(plans)


# Autogenerate.


@pytest.mark.parametrize("dimension", [384, 1536])
def test_autogenerate_sees_a_column_of_another_dimension(engine: sa.Engine, dimension: int) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        migration = MigrationContext.configure(connection, opts=autogenerate.options())
        assert compare_metadata(migration, Base.metadata) == []
        connection.execute(text(f"ALTER TABLE rag_chunks ALTER embedding TYPE vector({dimension})"))
        migration = MigrationContext.configure(connection, opts=autogenerate.options())
        (difference,) = compare_metadata(migration, Base.metadata)
        ((kind, _schema, table, column, _options, found, wanted),) = difference
        assert (kind, table, column) == ("modify_type", "rag_chunks", "embedding")
        assert (found.dim, wanted.dim) == (dimension, 768)
        script = produce_migrations(migration, Base.metadata)
        assert script.upgrade_ops is not None
        code = render_python_code(
            script.upgrade_ops,
            migration_context=migration,
            render_item=autogenerate.options()["render_item"],
        )
        assert f"existing_type=VECTOR({dimension})" in code
        assert "type_=VECTOR(768)" in code
        transaction.rollback()


def test_the_benchmark_runs(run: Command) -> None:
    script = ROOT / "benchmarks" / "embedding_insert.py"
    result = run("python", "-W", "error", str(script), "--rows", "20", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines()[-4:]] == ["| insert"] * 3 + ["| read"]


@pytest.mark.parametrize("scale", [1e30, 1e20, 1e-21, 1e-25])
def test_a_length_whose_square_is_no_float32_is_refused(scale: float) -> None:
    """Such a vector has distance 1 or NaN to itself in pgvector."""
    vector = FIRST * np.float32(scale)
    with pytest.raises(EmbeddingError, match="Divide it by its length"):
        Embedding().check(vector)
    with pytest.raises(EmbeddingError, match="Divide it by its length"):
        Embedding().check_all(np.array([FIRST, vector]))


@pytest.mark.parametrize("sign", [1, -1])
def test_what_float16_makes_zero_is_refused_and_nothing_else(sign: int) -> None:
    least = np.float32(2.0**-25)
    for number in (least, np.nextafter(least, np.float32(0)), np.nextafter(least, np.float32(1))):
        vectors = np.array([[0, 1], [0, sign * number]], np.float32)
        if vectors.astype(np.float16).any(axis=-1).all():
            np.testing.assert_array_equal(HalfEmbedding(2).check_all(vectors), vectors)
        else:
            with pytest.raises(EmbeddingError, match="all zeros in float16"):
                HalfEmbedding(2).check_all(vectors)
    with pytest.raises(EmbeddingError, match="holds 65520"):
        HalfEmbedding(2).check(np.array([1, sign * 65520], np.float32))


def test_pgvectors_own_values_are_taken() -> None:
    np.testing.assert_array_equal(Embedding().check(wire_format.pgvector.Vector(FIRST)), FIRST)
    half = wire_format.pgvector.HalfVector(FIRST.astype(np.float16))
    np.testing.assert_array_equal(Embedding().check(half), FIRST.astype(np.float16).astype(np.float32))


def test_what_hides_numbers_is_refused() -> None:
    masked = np.ma.masked_array(FIRST, mask=[True] + [False] * 767)
    with pytest.raises(EmbeddingError, match="masked array"):
        Embedding().check(masked)
    with pytest.raises(EmbeddingError, match="masked array"):
        Embedding().check_all(np.ma.masked_array(NUMBERS, mask=NUMBERS > 3))


def test_a_tensor_with_a_gradient_is_told_what_to_do() -> None:
    class Tensor:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    with pytest.raises(EmbeddingError, match=r"Tensor.*requires grad.*\n.*detach\(\)"):
        Embedding().check(Tensor())
