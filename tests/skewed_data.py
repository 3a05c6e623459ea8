"""Corpora whose averages mislead the planner, and even ones of the same size, made on the server in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow


@dataclass(frozen=True)
class Corpus:
    """A target document, and the crowd around it.

    Attributes:
        versions: Of the target, ``target``; each says the same, but for its first chunk.
        chunks: In each version of the target.
        crowd: Other documents, ``crowd-1`` and so on.
        crowd_versions: Of each of these.
        crowd_chunks: In each version of these.
        crowd_event: The type of their events in their latest version.
        is_analyzed: Whether the planner knows anything of it.
    """

    versions: int = 1
    chunks: int = 1
    crowd: int = 0
    crowd_versions: int = 1
    crowd_chunks: int = 1
    crowd_event: str = "added"
    is_analyzed: bool = True


# The first version of a document writes all its chunks, each later one its chunk 0; every EMBEDDED-th has a vector.
_STATEMENTS = (
    "SET LOCAL session_replication_role = replica",  # the rows are what the triggers would make of them
    "SET LOCAL maintenance_work_mem = '200MB'",
    "DROP INDEX rag_chunks_current_embedding_idx, rag_chunks_current_text_idx",
    """
    CREATE TEMPORARY TABLE document ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, 'target' AS article_id, {versions} AS versions, {chunks} AS chunks,
        'added' AS event
    UNION ALL
    SELECT gen_random_uuid(), 'crowd-' || number, {crowd_versions}, {crowd_chunks}, '{crowd_event}'
    FROM generate_series(1, {crowd}) AS number
    """,
    """
    CREATE TEMPORARY TABLE version ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, d.id AS document_id, article_id, chunks, event, number, number = versions AS is_last
    FROM document d, generate_series(1, d.versions) AS number
    """,
    """
    INSERT INTO rag_documents (id, article_id, current_version_id)
    SELECT document_id, article_id, id FROM version WHERE is_last
    """,
    """
    INSERT INTO rag_document_versions
        (id, document_id, version_number, source_hash, chunker_version, embedder_version, title)
    SELECT id, document_id, number, 'hash ' || number, 'chunker', 'model', article_id FROM version
    """,
    """
    CREATE TEMPORARY TABLE chunk ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, v.id AS version_id, document_id, number, ordinal,
        is_last OR ordinal > 0 AS is_current,
        'text ' || ordinal || ' of ' || article_id || CASE ordinal WHEN 0 THEN ' in ' || number ELSE '' END AS content
    FROM version v, generate_series(0, CASE number WHEN 1 THEN chunks - 1 ELSE 0 END) AS ordinal
    """,
    """
    INSERT INTO rag_chunks (id, version_id, ordinal, content, is_current, embedding)
    SELECT id, version_id, ordinal, content, is_current AND event <> 'deleted', CASE WHEN n % 40 = 0 THEN
        (SELECT array_agg(random() - 0.5) FROM generate_series(1, 768) WHERE n > 0)::vector END
    FROM (SELECT chunk.*, event, row_number() OVER () AS n FROM chunk JOIN document d ON d.id = document_id) c
    """,
    """
    INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
    SELECT v.id, c.id, c.ordinal, CASE
        WHEN v.is_last AND v.event = 'deleted' THEN 'deleted'
        WHEN v.number = c.number THEN v.event
        ELSE 'unchanged' END::chunk_event_type
    FROM version v JOIN chunk c ON c.document_id = v.document_id
    WHERE c.number = v.number OR c.number = 1 AND c.ordinal > 0
    """,
    """
    CREATE INDEX rag_chunks_current_embedding_idx ON rag_chunks USING hnsw (embedding vector_cosine_ops)
    WHERE is_current
    """,
    """
    CREATE INDEX rag_chunks_current_text_idx ON rag_chunks USING gin (rag_text_vector(text_config, content))
    WHERE is_current
    """,
)


def fill(connection: psycopg.Connection[TupleRow], corpus: Corpus) -> None:
    """Insert a corpus into an empty database at head.

    Args:
        connection: In autocommit, as superuser.
        corpus: What to insert.
    """
    values = vars(corpus)
    with connection.transaction():
        for statement in _STATEMENTS:
            connection.execute(statement.format(**values).encode())
    tables = "rag_documents, rag_document_versions, rag_chunks, rag_chunk_events"
    if corpus.is_analyzed:
        connection.execute(f"VACUUM (ANALYZE) {tables}".encode())
    else:
        for table in tables.split(", "):
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
