"""Documents for the tests of statements, made on the server in seconds."""

from __future__ import annotations

import psycopg
from psycopg.rows import TupleRow

from ragschema.database.citus import has_citus

# Two versions of each document: the second has all chunks of the first but one, which it replaced. Embeddings
# gather around a hundred centres; documents of one centre are a hundred apart.
_STATEMENTS = (
    "SELECT setseed(0.42)",
    "SET LOCAL session_replication_role = replica",  # the rows are what the triggers would make of them
    "SET LOCAL maintenance_work_mem = '200MB'",
    "DROP INDEX rag_chunks_current_embedding_idx",
    """
    CREATE TEMPORARY TABLE centre ON COMMIT DROP AS
    SELECT place, ARRAY(SELECT random() - 0.5 FROM generate_series(1, 768) WHERE place >= 0) AS embedding
    FROM generate_series(0, 99) AS place
    """,
    """
    CREATE TEMPORARY TABLE article ON COMMIT DROP AS
    SELECT number, gen_random_uuid() AS document, gen_random_uuid() AS first, gen_random_uuid() AS second
    FROM generate_series(0, {documents} - 1) AS number
    """,
    """
    INSERT INTO rag_documents (id, article_id, current_version_id, text_config)
    SELECT document, 'article-' || number, second, CASE number % 4 WHEN 3 THEN 'english' ELSE 'simple' END
    FROM article
    """,
    """
    INSERT INTO rag_document_versions
      (id, document_id, version_number, source_hash, chunker_version, embedder_version, title, url)
    SELECT version, document, counter, 'hash ' || counter, 'sentences-1', 'model-1', 'Title ' || number % 100,
           'https://example.org/' || number
    FROM article, unnest(ARRAY[first, second]) WITH ORDINALITY AS version (version, counter)
    """,
    """
    INSERT INTO rag_chunks (version_id, ordinal, content, embedding, is_current, text_config)
    SELECT CASE ordinal WHEN {chunks} THEN second ELSE first END, CASE ordinal WHEN {chunks} THEN 0 ELSE ordinal END,
           'common Word' || number % 500 || ' of article ' || number || ' cut at ' || ordinal || ' running',
           ARRAY(
             SELECT part + 0.5 * (random() - 0.5) FROM unnest(centre.embedding) AS part WHERE ordinal >= 0
           )::vector,
           ordinal > 0, CASE number % 4 WHEN 3 THEN 'english' ELSE 'simple' END
    FROM article JOIN centre ON place = number % 100
    CROSS JOIN generate_series(0, {chunks}) AS ordinal
    """,
    """
    INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
    SELECT first, chunk.id, ordinal, 'added' FROM article JOIN rag_chunks chunk ON version_id = first
    """,
    """
    INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
    SELECT second, chunk.id, ordinal, CASE version_id WHEN second THEN 'updated'::chunk_event_type ELSE 'unchanged' END
    FROM article JOIN rag_chunks chunk ON version_id IN (first, second) WHERE is_current
    """,
    """
    CREATE INDEX rag_chunks_current_embedding_idx ON rag_chunks USING hnsw (embedding vector_cosine_ops)
    WHERE is_current
    """,
)


def fill(connection: psycopg.Connection[TupleRow], *, documents: int, chunks: int) -> None:
    """Insert documents of two versions with so many chunks each, and analyze.

    Args:
        connection: In autocommit, as superuser, to a database at head.
        documents: ``article-0`` and so on; titles repeat every hundred.
        chunks: In a version, from ordinal 0; the old version's first one is not current.
    """
    with connection.transaction():
        for statement in _STATEMENTS:
            connection.execute(statement.format(documents=documents, chunks=chunks).encode())
    connection.execute("VACUUM ANALYZE")
    if has_citus(connection):  # which tells the nodes of tables that are named
        connection.execute(
            "VACUUM ANALYZE rag_documents, rag_document_versions, rag_chunks, rag_chunk_events"
        )
