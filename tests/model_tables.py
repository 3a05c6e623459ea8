"""Embedding models for tests, made by hand: a row of the registry, and its partition attached as a command would."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema.embeddings.wire import Vector


def register_column(session: Session | sa.Connection, key: str = "default", state: str = "active") -> None:
    """Register the column ``rag_chunks.embedding``, which the database is then used with."""
    session.execute(
        sa.text(
            "INSERT INTO rag_embedding_models (id, key, dimensions, index_type, state)"
            " VALUES (1, :key, 768, 'vector', :state)"
        ),
        {"key": key, "state": state},
    )


def add_model(
    session: Session | sa.Connection,
    key: str,
    dimensions: int,
    *,
    state: str = "building",
    indexed: bool = False,
) -> int:
    """Register a model with its partition, and with an HNSW index where that is asked for; return its id."""
    number: int | None = session.scalar(
        sa.text(
            "INSERT INTO rag_embedding_models (key, dimensions, index_type, state)"
            " VALUES (:key, :dimensions, :index_type, :state) RETURNING id"
        ),
        {
            "key": key,
            "dimensions": dimensions,
            "index_type": "halfvec" if indexed else "none",
            "state": state,
        },
    )
    assert number is not None
    name = f"rag_chunk_embeddings_{number}"
    for statement in (
        f"CREATE TABLE {name} (LIKE rag_chunk_embeddings INCLUDING ALL)",
        f"ALTER TABLE {name} ADD CONSTRAINT {name}_dimensions_check CHECK (vector_dims(embedding) = {dimensions})",
        f"ALTER TABLE {name} ADD CONSTRAINT {name}_norm_check CHECK (inner_product(embedding, embedding) > 0)",
        f"ALTER TABLE {name} ADD CONSTRAINT {name}_model_check CHECK (model_id = {number})",
        f"ALTER TABLE {name} ADD FOREIGN KEY (chunk_id, is_current) REFERENCES rag_chunks (id, is_current)"
        " ON UPDATE CASCADE ON DELETE CASCADE",
        f"ALTER TABLE rag_chunk_embeddings ATTACH PARTITION {name} FOR VALUES IN ({number})",
    ):
        session.execute(sa.text(statement))
    if indexed:
        session.execute(
            sa.text(
                f"CREATE INDEX {name}_idx ON {name}"
                f" USING hnsw ((embedding\\:\\:halfvec({dimensions})) halfvec_cosine_ops) WHERE is_current"
            )
        )
    return number


def activate(session: Session | sa.Connection, key: str) -> None:
    """Make a model the active one, and the one before it stand by."""
    session.execute(sa.text("UPDATE rag_embedding_models SET state = 'standby' WHERE state = 'active'"))
    session.execute(
        sa.text("UPDATE rag_embedding_models SET state = 'active' WHERE key = :key"), {"key": key}
    )


def drop_model(session: Session | sa.Connection, key: str) -> None:
    """Take a model's row and its partition away."""
    number = session.scalar(
        sa.text("DELETE FROM rag_embedding_models WHERE key = :key RETURNING id"), {"key": key}
    )
    session.execute(sa.text(f"TRUNCATE rag_chunk_embeddings_{number}"))
    session.execute(sa.text(f"DROP TABLE rag_chunk_embeddings_{number}"))


def embed_by(key: str, dimensions: int, text: str) -> Vector:
    """Return a vector that the model and the text alone decide, exact in half precision."""
    seed = int.from_bytes(hashlib.sha256(f"{key} {text}".encode()).digest()[:8], "big")
    return np.random.default_rng(seed).integers(1, 1_000, dimensions).astype(np.float32)


def read_embeddings(session: Session | sa.Connection, key: str, *, current: bool = True) -> dict[str, Any]:
    """Return a model's embeddings of chunks, by their text; of the current ones, or of all."""
    rows = session.execute(
        sa.text(
            "SELECT c.content, e.embedding\\:\\:text AS embedding FROM rag_chunk_embeddings e"
            " JOIN rag_embedding_models m ON m.id = e.model_id JOIN rag_chunks c ON c.id = e.chunk_id"
            " WHERE m.key = :key AND (e.is_current OR NOT :current)"
        ),
        {"key": key, "current": current},
    )
    return {
        row.content: row.embedding and np.array(row.embedding[1:-1].split(","), np.float32) for row in rows
    }


def wait_until_blocked(engine: sa.Engine, by: int, work: Future[Any]) -> None:
    """Return when some session waits for the backend ``by``, or the work is done."""
    waits = sa.text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE :by = ANY(pg_blocking_pids(pid)))")
    with engine.connect() as connection:
        while not work.done() and not connection.scalar(waits, {"by": by}):
            connection.rollback()
