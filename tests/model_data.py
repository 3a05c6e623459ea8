"""Embedding models whose partitions are filled on the server, for the tests of searches."""

from __future__ import annotations

import psycopg
from psycopg.rows import TupleRow

from ragschema.database.settings import Database
from ragschema.embedding_models import add_model
from ragschema.schema.embedding_models import Distance, IndexType, ModelState
from ragschema.state.partitions import index_definition, read_models


def make_model(
    database: Database,
    connection: psycopg.Connection[TupleRow],
    key: str,
    dimensions: int,
    *,
    distance: Distance = "cosine",
    index_type: IndexType = "halfvec",
    state: ModelState = "standby",
) -> None:
    """Add a model, embed every current chunk by it, at random but the same in every run, and index it.

    Args:
        connection: In autocommit, to the database.
        state: Any but active, which the column is.
    """
    add_model(database, key, dimensions, distance=distance, index_type=index_type)
    (schema,) = connection.execute("SELECT current_schema()").fetchone() or ("",)
    (model,) = [model for model in read_models(connection, schema) if model.key == key]
    # where the rows are drawn, which on Citus is the tenant's node
    connection.execute("SELECT setseed(0.5) FROM (SELECT count(*) FROM rag_chunks) there")
    connection.execute(
        f"""
        INSERT INTO {model.table} (chunk_id, model_id, is_current, embedding)
        SELECT id, {model.id}, true, ARRAY(
            SELECT random() - 0.5 FROM generate_series(1, {dimensions}) WHERE ordinal >= 0
        )::real[]::halfvec
        FROM rag_chunks WHERE is_current
        """.encode()
    )
    if index_type != "none":
        connection.execute(index_definition(model).encode())
    connection.execute("UPDATE rag_embedding_models SET state = %s WHERE id = %s", (state, model.id))
    connection.execute(f"ANALYZE {model.table}".encode())
