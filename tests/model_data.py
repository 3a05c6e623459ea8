"""Embedding models with their partitions, for the tests of searches: made and filled on the server."""

from __future__ import annotations

import psycopg
from psycopg.rows import TupleRow

from ragschema.schema.embedding_models import Distance, IndexType, ModelState

_OPCLASS = {"cosine": "cosine", "l2": "l2", "inner_product": "ip"}


def make_model(
    connection: psycopg.Connection[TupleRow],
    key: str,
    dimensions: int,
    *,
    distance: Distance = "cosine",
    index_type: IndexType = "halfvec",
    state: ModelState = "standby",
) -> int:
    """Register a model and embed every current chunk by it, at random but the same in every run; return its id."""
    row = connection.execute(
        "INSERT INTO rag_embedding_models (key, dimensions, distance, index_type, state)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING id",
        (key, dimensions, distance, index_type, state),
    ).fetchone()
    assert row is not None
    table = f"rag_chunk_embeddings_{row[0]}"
    statements = [
        f"CREATE TABLE {table} (LIKE rag_chunk_embeddings INCLUDING ALL)",
        f"ALTER TABLE {table} ADD CONSTRAINT {table}_dimensions_check CHECK (vector_dims(embedding) = {dimensions})",
        f"ALTER TABLE rag_chunk_embeddings ATTACH PARTITION {table} FOR VALUES IN ({row[0]})",
        "SELECT setseed(0.5)",
        f"""
        INSERT INTO {table} (chunk_id, model_id, is_current, embedding)
        SELECT id, {row[0]}, true, ARRAY(
            SELECT random() - 0.5 FROM generate_series(1, {dimensions}) WHERE ordinal >= 0
        )::real[]::halfvec
        FROM rag_chunks WHERE is_current
        """,
    ]
    cast = f"embedding::{'vector' if index_type == 'vector' else 'halfvec'}({dimensions})"
    item = f"({cast}) {index_type}_{_OPCLASS[distance]}_ops"
    if index_type == "bit":
        item = f"(binary_quantize({cast})::bit({dimensions})) bit_hamming_ops"
    if index_type != "none":
        statements.append(f"CREATE INDEX {table}_idx ON {table} USING hnsw ({item}) WHERE is_current")
    for statement in [*statements, f"ANALYZE {table}"]:
        connection.execute(statement.encode())
    return int(row[0])
