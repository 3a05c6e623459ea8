"""What the tests of embedding models share: chunks that wait, an embedder of few dimensions, what is stale."""

from __future__ import annotations

import hashlib

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from citus_tenants import is_tenant
from conftest import connect
from ragschema import jobs
from ragschema.database.settings import Database
from ragschema.embedding_models import JOB_TYPE, backfill_batch
from ragschema.embeddings.wire import Vector

DIMENSIONS = 16


def embed(texts: list[str]) -> Vector:
    """Return unit vectors of 16 dimensions, each decided by its text alone."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
    vectors = np.array(
        [np.random.default_rng(seed).standard_normal(DIMENSIONS) for seed in seeds], np.float32
    )
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def write_chunks(database: Database, number: int) -> None:
    """Write a document of current chunks without embeddings, as the first services do."""
    with connect(database) as connection, connection.transaction():
        connection.execute(
            "WITH d AS (INSERT INTO rag_documents (article_id) VALUES (gen_random_uuid()::text) RETURNING id),"
            " v AS (INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version,"
            " embedder_version) SELECT id, 1, 'h', 'c', 'e' FROM d RETURNING id)"
            " INSERT INTO rag_chunks (version_id, ordinal, content) SELECT v.id, n, 'text ' || n"
            " FROM v, generate_series(1, %s) n",
            (number,),
        )
        connection.execute(
            "UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v"
            " WHERE v.document_id = d.id AND d.current_version_id IS NULL"
        )
        if is_tenant(database):  # where no trigger does it
            connection.execute(
                "UPDATE rag_chunks c SET is_current = true FROM rag_documents d"
                " WHERE d.current_version_id = c.version_id AND NOT c.is_current"
            )


def do_jobs(engine: sa.Engine, limit: int = 1_000_000) -> int:
    """Do the jobs of backfills as a worker does; return how many."""
    sessions = sessionmaker(engine)
    for done in range(limit):
        with engine.begin() as connection:
            claimed = jobs.claim(connection, "the tests", [JOB_TYPE])
        if not claimed:
            return done
        backfill_batch(sessions, claimed[0], embed, page=7)
        with engine.begin() as connection:
            assert jobs.complete(connection, claimed[0])
    return limit


def count_stale(session: Session | sa.Connection) -> int:
    """Count the embeddings whose is_current is not their chunk's, or whose chunk is gone."""
    return (
        session.scalar(
            sa.text(
                "SELECT count(*) FROM rag_chunk_embeddings e LEFT JOIN rag_chunks c ON c.id = e.chunk_id"
                " WHERE c.is_current IS DISTINCT FROM e.is_current"
            )
        )
        or 0
    )
