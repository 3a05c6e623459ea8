"""What the tests of publishing share: databases with and without triggers, a deterministic embedder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from citus_tenants import is_tenant
from conftest import connect, made_database
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector
from ragschema.publishing import PublishedVersion, VersionPlan, plan_version, publish
from ragschema.schema.row_rules import broken_documents

NAMES = {"chunker_version": "c1", "embedder_version": "e1"}


@pytest.fixture(scope="module", params=[True, False], ids=["triggers", "no triggers"])
def publishing_database(
    request: pytest.FixtureRequest, server: Mapping[str, str], template: str
) -> Iterator[Database]:
    """A module's database at head, with its triggers and without."""
    with made_database(server, template) as database:
        if not request.param:
            drop_triggers(database)
        yield database


@pytest.fixture
def consistent_connection(shared: Database) -> Iterator[sa.Connection]:
    """A connection to the module's ``shared`` database: rolled back, and its documents are consistent then."""
    engine = sa.create_engine(shared.url())
    with engine.connect() as connection:
        yield connection
        connection.rollback()
        assert_consistent(connection)
    engine.dispose()


def over_asyncpg(database: Database) -> sa.URL:
    """Return the URL of a database for asyncpg, which wants a socket's directory as the host of a query."""
    given = database.parameters
    return sa.URL.create(
        "postgresql+asyncpg",
        username=given["user"],
        database=given["dbname"],
        query={"host": given["host"], "port": given["port"]},
    )


def drop_triggers(database: Database) -> None:
    with connect(database) as connection:
        triggers = connection.execute(
            "SELECT tgname, c.oid::regclass::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace"
        ).fetchall()
        assert triggers or is_tenant(database)
        for name, table in triggers:
            connection.execute(f"DROP TRIGGER {name} ON {table}".encode())


def embed(text: str) -> Vector:
    """Return a unit vector that the text alone decides."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(768).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def make_plan(session: Any, /, article_id: str, contents: Sequence[str], **names: Any) -> VersionPlan:
    source_hash = hashlib.sha256(repr(contents).encode()).hexdigest()
    return plan_version(session, article_id, contents, **{"source_hash": source_hash, **NAMES, **names})


def publish_texts(
    session: Any, article_id: str, contents: Sequence[str], *, copy_unchanged: bool = False, **names: Any
) -> PublishedVersion:
    """Plan, embed and publish."""
    plan = make_plan(session, article_id, contents, **names)
    embeddings = [embed(text) for text in plan.texts_to_embed]
    return publish(session, plan, embeddings, copy_unchanged=copy_unchanged)


def read_current(session: Session | sa.Connection, article_id: str) -> list[sa.Row[Any]]:
    """Return what search can find of a document, in order of the rows' ordinals."""
    return list(
        session.execute(
            sa.text(
                "SELECT c.id, c.content, c.version_id, c.ordinal, c.embedding::text AS embedding, c.text_config"
                " FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id"
                " JOIN rag_documents d ON d.id = v.document_id"
                " WHERE d.article_id = :article_id AND c.is_current ORDER BY c.content, c.id"
            ),
            {"article_id": article_id},
        )
    )


def read_events(session: Session | sa.Connection, version_id: object) -> list[tuple[str, int, str | None]]:
    """Return ``(event_type, ordinal, content)`` of a version, the deleted last."""
    rows = session.execute(
        sa.text(
            "SELECT e.event_type, e.ordinal, c.content FROM rag_chunk_events e"
            " LEFT JOIN rag_chunks c ON c.id = e.chunk_id WHERE e.version_id = :id"
            " ORDER BY e.event_type = 'deleted', e.ordinal"
        ),
        {"id": version_id},
    )
    return [(row.event_type, row.ordinal, row.content) for row in rows]


def assert_consistent(session: Session | sa.Connection) -> None:
    assert session.execute(broken_documents()).all() == []
