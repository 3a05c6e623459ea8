"""Recall of a model's index: what it finds of what an exact search finds, for queries near stored embeddings."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

import numpy as np
from psycopg import sql

from ragschema.database.citus import has_citus
from ragschema.database.connections import beside_parameters
from ragschema.database.server import Connection
from ragschema.embedding_models.indexes import find_index
from ragschema.embedding_models.registry import looking, require_model
from ragschema.embeddings.wire import Vector, to_text
from ragschema.errors import ModelRefused
from ragschema.migrations.request import DatabaseArgument
from ragschema.state.partitions import RegisteredModel

SAMPLE = 50  # queries
SECONDS = 10.0  # after which no more of them are asked
LIMIT = 10  # chunks a query
EF_SEARCH = 80
_LEAST = 10  # queries that are asked whatever they take
_NOISE = 0.5  # of a query, in lengths of the embedding that it is made of
_CANDIDATES = 8  # times as many are fetched by bits, to be ordered by the embeddings

_OPERATORS = {"cosine": "<=>", "l2": "<->", "inner_product": "<#>"}
# a sample by a hash of the ids: other embeddings each time, and read without sorting them
_SAMPLE = """
SELECT {vector}::vector::real[] FROM (
    SELECT {column} AS embedding FROM {table} WHERE is_current AND {column} IS NOT NULL
    ORDER BY hashtext({id}::text || %(seed)s::text) LIMIT %(sample)s
) s
"""
_ASK = """
SELECT ({vector} {operator} %(query)s::{type})::float8 FROM {table} WHERE is_current AND {column} IS NOT NULL
ORDER BY {vector} {operator} %(query)s::{type} LIMIT %(limit)s
"""
_ASK_BY_BITS = """
SELECT (found.embedding::{type} {operator} %(query)s::{type})::float8 FROM (
    SELECT {column} AS embedding FROM {table} WHERE is_current AND {column} IS NOT NULL
    ORDER BY binary_quantize({column}::{type})::bit({dimensions}) <~> binary_quantize(%(query)s::{type})
    LIMIT %(candidates)s
) found ORDER BY 1 LIMIT %(limit)s
"""


@dataclass(frozen=True)
class Recall:
    """The recall of a model's index.

    Attributes:
        key: The model.
        recall: The share of the exact answers that the index found, 0 to 1; None where there is nothing to find.
        queries: How many were asked.
        limit: How many chunks each asked for.
        ef_search: Of the HNSW index.
    """

    key: str
    recall: float | None
    queries: int
    limit: int
    ef_search: int


def check_recall(
    database: DatabaseArgument, key: str, *, schema: str | None = None, sample: int = SAMPLE
) -> Recall:
    """Measure the recall of a model's index: exact search against it; reads only, within some ten seconds.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide where it is None.
        key: The model.
        schema: The schema of the tables; the first of the search_path by default.
        sample: Queries to ask at most.

    Raises:
        UnknownModel: There is none of this key.
        ModelRefused: It has no valid index.
    """
    with looking(database, schema) as at:
        model = require_model(at.connection, at.schemas.target, key)
        index = find_index(at.connection, at.schemas.target, model)
        if index.state != "valid":
            raise no_valid_index(model, index.state)
        return measure_recall(at.connection, at.schemas.target, model, sample=sample)


def measure_recall(
    connection: Connection, schema: str, model: RegisteredModel, *, sample: int = SAMPLE
) -> Recall:
    """Measure the recall of a valid index on an open connection.

    A query is a stored embedding with noise of half its length: the embedding itself would be found too easily. An
    answer counts where it is as near as the farthest of the exact ones, whichever of equals it is.
    """
    kind = "vector" if model.index_type == "vector" else "halfvec"
    typed = f"{kind}({model.dimensions})"
    names = {
        "table": beside_parameters(schema, model.table),
        "column": sql.Identifier("embedding"),
        "id": sql.Identifier("id" if model.is_column else "chunk_id"),
        "operator": sql.SQL(_OPERATORS[model.distance]),
        "type": sql.SQL(typed),
        "dimensions": sql.Literal(model.dimensions),
        "vector": sql.SQL("embedding" if model.is_column else f"(embedding::{typed})"),
    }
    ask = sql.SQL(_ASK).format(**names)
    by_index = sql.SQL(_ASK_BY_BITS).format(**names) if model.index_type == "bit" else ask
    is_there = has_citus(connection)
    hits = wanted = queries = 0
    began = time.monotonic()
    for query in _make_queries(connection, sql.SQL(_SAMPLE).format(**names), sample):
        if queries >= _LEAST and time.monotonic() - began > SECONDS:
            break
        parameters = {"query": to_text(query), "limit": LIMIT, "candidates": LIMIT * _CANDIDATES}
        exact = _distances(connection, ask, parameters, "enable_indexscan", is_there=is_there)
        found = _distances(connection, by_index, parameters, "enable_seqscan", is_there=is_there)
        farthest = exact[-1] + 1e-6 * max(1.0, abs(exact[-1])) if exact else 0.0
        hits += min(len(exact), sum(distance <= farthest for distance in found))
        wanted += len(exact)
        queries += 1
    return Recall(model.key, hits / wanted if wanted else None, queries, LIMIT, EF_SEARCH)


def no_valid_index(model: RegisteredModel, state: str) -> ModelRefused:
    """Return the error of a model whose index is not there to be searched by."""
    return ModelRefused(
        f"The index of the embedding model {model.key!r} is {state}.",
        f"Run `rag models index {shlex.quote(model.key)}` first."
        if model.index_type != "none"
        else "It is searched exactly: there is nothing to measure.",
    )


def _make_queries(connection: Connection, statement: sql.Composed, sample: int) -> list[Vector]:
    rng = np.random.default_rng()
    rows = connection.execute(statement, {"seed": int(rng.integers(2**31)), "sample": sample}).fetchall()
    queries = []
    for (numbers,) in rows:
        stored = np.asarray(numbers, np.float32)
        noise = rng.standard_normal(stored.shape).astype(np.float32)
        noise *= _NOISE * np.linalg.norm(stored) / np.linalg.norm(noise)
        queries.append(stored + noise)
    return queries


def _distances(
    connection: Connection,
    statement: sql.Composed,
    parameters: dict[str, object],
    without: str,
    *,
    is_there: bool,
) -> list[float]:
    """Return the distances of an answer that does without a kind of scan; on Citus its node is told so too."""
    with connection.transaction():
        if is_there:
            connection.execute("SET LOCAL citus.propagate_set_commands = 'local'")
        for setting in (f"{without} = off", f"hnsw.ef_search = {EF_SEARCH}"):  # Citus sends on one at a time
            connection.execute(f"SET LOCAL {setting}".encode())
        return [float(row[0]) for row in connection.execute(statement, parameters).fetchall()]
