"""Questions to ask an index for its recall, made of the rows in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ragschema.database.server import Connection
from ragschema.index_health.catalogue import HnswIndex

MEASURABLE = ("vector", "halfvec", "bit")
"""Types that questions can be made of."""

NOISE = 1.0
"""Length of the noise that is added to an embedding, in lengths of that embedding.

Searched with as they are stored, embeddings flatter an index: each leads to itself. With noise as long as they are, an
index of 20,000 chunks that was vacuumed after each of five republishings found 0.925 of the ten nearest, and a rebuilt
one 1.000 (stored: 0.985 and 1.000). Midpoints of two chunks find less in a new index too (0.80), so that no threshold
tells the two apart: docs/index-health.md.
"""

_FLIPPED = 0.25  # of a question in bits: what that noise, 45 degrees, does to the signs of an embedding

_PAGES_A_ROW = 4  # pages to look at for each row that is wanted, at first
_GROWTH = 8  # and how many times as many where those had too few

# As text only what is drawn: that takes 0.3 ms each.
_DRAW = """
SELECT value::text FROM (
    SELECT place, value FROM (
        SELECT DISTINCT ON (page) page, place, value FROM (
            SELECT (ctid::text::point)[0] AS page, ctid::text AS place, {expression} AS value
            FROM ONLY {table} {sampled} WHERE {predicate} AND ({expression}) IS NOT NULL OFFSET 0
        ) each ORDER BY page, md5(place || %(seed)s)
    ) a_page_each ORDER BY md5(place || %(seed)s) LIMIT %(wanted)s
) drawn
"""


def draw_questions(
    connection: Connection, index: HnswIndex, wanted: int, random: np.random.Generator
) -> list[str]:
    """Draw rows of an index, a page each, and make questions of them.

    Args:
        connection: In the transaction that asks them.
        index: Of a type in `MEASURABLE`.
        wanted: How many at most; fewer where the table has fewer pages.
        random: Where chance comes from.

    Returns:
        Values of the index's type, as text.
    """
    stored = _draw(connection, index, wanted, int(random.integers(1 << 31)))
    if not stored:
        return []
    if index.type == "bit":
        return _flipped(stored, random)
    embeddings = np.array([np.fromstring(each[1:-1], np.float32, sep=",") for each in stored])
    return ["[" + ",".join(map(str, each.tolist())) + "]" for each in _moved(embeddings, random)]


def _draw(connection: Connection, index: HnswIndex, wanted: int, seed: int) -> Sequence[str]:
    """Return values of the index, as text, each of another page of the table."""
    share = _PAGES_A_ROW * wanted / max(1, index.pages)
    while True:
        sampled = f"TABLESAMPLE SYSTEM ({100 * share}) REPEATABLE ({seed})" if share < 1 else ""
        statement = _DRAW.format(
            expression=index.expression.replace("%", "%%"),
            table=sql.Identifier(index.schema, index.stored_table).as_string().replace("%", "%%"),
            sampled=sampled,
            predicate=(index.predicate or "true").replace("%", "%%"),
        )
        rows = connection.execute(statement.encode(), {"seed": str(seed), "wanted": wanted}).fetchall()
        if len(rows) >= wanted or share >= 1:
            return [row[0] for row in rows]
        share *= _GROWTH


def _moved(embeddings: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    noise = random.standard_normal(embeddings.shape, dtype=np.float32)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    moved = embeddings + NOISE * lengths * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(moved, np.float32)


def _flipped(stored: Sequence[str], random: np.random.Generator) -> list[str]:
    bits = np.array([np.frombuffer(each.encode(), np.uint8) for each in stored])
    flipped = bits ^ (random.random(bits.shape) < _FLIPPED)
    return [each.astype(np.uint8).tobytes().decode() for each in flipped]
