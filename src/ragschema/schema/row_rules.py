"""The rules that only all rows together can break, as statements: each lists what breaks them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from ragschema.errors import UsageError
from ragschema.schema.index_reads import is_one, rows_of
from ragschema.values import several
from ragschema.words import counted

SINCE = "20261121121400"
"""The revision from which on the rules hold: it marked old rows, which the catalogue does not show."""
EMBEDDINGS_SINCE = "20261128130120"
"""The revision from which on models other than the column have embeddings."""
DELETION_SINCE = "20261128140010"
"""The revision from which on documents can be deleted."""
NO_DOCUMENT = "(no document)"
"""Stands for the document of embeddings whose chunk is gone."""


@dataclass(frozen=True)
class BrokenDocument:
    """A document whose chunks are not what its versions say.

    Attributes:
        article_id: The document.
        problem: One of the problems that `broken_documents` names.
        chunk_ids: The chunks it concerns.
    """

    article_id: str
    problem: Literal[
        "wrongly current",
        "wrongly not current",
        "other text configuration",
        "of another document",
        "with embeddings marked otherwise",
        "with embeddings of no model",
        "gone, with embeddings left",
    ]
    chunk_ids: tuple[UUID, ...]

    def __str__(self) -> str:
        return f"{self.article_id}: {counted(len(self.chunk_ids), 'chunk')} {self.problem}"


# The chunks of each document, by the version they were written with, against the manifest of its current version; of a
# deleted one, against nothing.
# A full join is never a nested loop, which the planner would take where it expects few rows.
_BROKEN = """
WITH documents AS (
    SELECT id, article_id, {current} AS current_version_id, text_config FROM rag_documents {filter}
), manifests AS MATERIALIZED (
    SELECT d.id AS document_id, e.chunk_id
    FROM documents d
    {listed}
    UNION
    SELECT d.id, c.id
    FROM documents d
    {unlisted}
    WHERE {no_events}
), written AS MATERIALIZED (
    SELECT d.id AS document_id, d.article_id, d.text_config AS wanted, c.id, c.is_current, c.text_config
    FROM documents d
    {versions}
    {chunks}
), compared AS MATERIALIZED (
    SELECT w.article_id, w.id AS chunk_id, CASE
        WHEN m.chunk_id IS NULL AND w.is_current THEN 'wrongly current'
        WHEN m.chunk_id IS NOT NULL AND NOT w.is_current THEN 'wrongly not current'
        WHEN m.chunk_id IS NOT NULL AND w.text_config <> w.wanted THEN 'other text configuration'
    END AS problem
    FROM written w FULL JOIN manifests m ON m.document_id = w.document_id AND m.chunk_id = w.id
), problems AS (
    SELECT article_id, chunk_id, problem FROM compared
    UNION ALL
    SELECT d.article_id, e.chunk_id, 'of another document'
    FROM documents d
    {versions}
    {events}
    {homes}
{embeddings})
SELECT article_id, problem, array_agg(DISTINCT chunk_id) AS chunk_ids
FROM problems WHERE problem IS NOT NULL
GROUP BY article_id, problem ORDER BY article_id, problem
"""

# All documents: the tables are joined as wholes. Some: by their indexes, whatever the averages are.
_OF_ALL = {
    "filter": "",
    "listed": "JOIN rag_chunk_events e ON e.version_id = d.current_version_id AND e.event_type <> 'deleted'",
    "unlisted": "JOIN rag_chunks c ON c.version_id = d.current_version_id",
    "versions": "JOIN rag_document_versions v ON v.document_id = d.id",
    "chunks": "JOIN rag_chunks c ON c.version_id = v.id",
    "events": "JOIN rag_chunk_events e ON e.version_id = v.id",
    "no_events": "NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = d.current_version_id)",
    "embedded": "JOIN rag_chunk_embeddings e ON e.chunk_id = w.id",
    "homes": "JOIN rag_chunks c ON c.id = e.chunk_id"
    " JOIN rag_document_versions home ON home.id = c.version_id AND home.document_id <> d.id",
}
_OF_SOME = {
    "filter": "WHERE article_id = ANY(CAST(:article_ids AS text[]))",
    "listed": f"JOIN {rows_of('rag_chunk_events', 'version_id', 'd.current_version_id')} e"
    " ON e.event_type <> 'deleted'",
    "unlisted": f"CROSS JOIN {rows_of('rag_chunks', 'version_id', 'd.current_version_id')} c",
    "versions": f"CROSS JOIN {rows_of('rag_document_versions', 'document_id', 'd.id')} v",
    "chunks": f"CROSS JOIN {rows_of('rag_chunks', 'version_id', 'v.id')} c",
    "events": f"CROSS JOIN {rows_of('rag_chunk_events', 'version_id', 'v.id')} e",
    "no_events": "(SELECT e.id FROM rag_chunk_events e"
    f" WHERE {is_one('e.version_id', 'd.current_version_id')} ORDER BY e.version_id LIMIT 1) IS NULL",
    "embedded": "CROSS JOIN LATERAL (SELECT * FROM rag_chunk_embeddings WHERE chunk_id = w.id OFFSET 0) e",
    "homes": "JOIN LATERAL (SELECT home.document_id FROM rag_chunks c"
    " JOIN rag_document_versions home ON home.id = c.version_id WHERE c.id = e.chunk_id OFFSET 0) home"
    " ON home.document_id <> d.id",
}

# What a foreign key keeps and the registry says: broken only where somebody has disabled the one or changed the other.
_OF_EMBEDDINGS = """    UNION ALL
    SELECT w.article_id, w.id, 'with embeddings marked otherwise'
    FROM written w {embedded}
    WHERE e.is_current <> w.is_current
    UNION ALL
    SELECT w.article_id, w.id, 'with embeddings of no model'
    FROM written w {embedded}
    WHERE NOT EXISTS (SELECT FROM rag_embedding_models m WHERE m.id = e.model_id AND m.id <> 1 AND m.state <> 'retired')
"""
_LEFT_OVER = f"""    UNION ALL
    SELECT '{NO_DOCUMENT}', e.chunk_id, 'gone, with embeddings left'
    FROM rag_chunk_embeddings e WHERE NOT EXISTS (SELECT FROM rag_chunks c WHERE c.id = e.chunk_id)
"""


def broken_documents(
    article_ids: Collection[str] | None = None, *, embeddings: bool = True, deletion: bool = True
) -> sa.TextualSelect:
    """Select the documents whose chunks are not what their versions say, or whose embeddings are not as their chunks.

    Args:
        article_ids: Look at these only; at all by default, which reads every chunk row, event and embedding's row once.
        embeddings: Whether to look at the embeddings of several models: before `EMBEDDINGS_SINCE` there are none.
        deletion: Whether documents may be deleted: before `DELETION_SINCE` none can.

    Returns:
        A statement of rows ``(article_id, problem, chunk_ids)``. The problem is ``wrongly current`` (search finds
        a chunk that is not in the current version's manifest, or whose document is deleted), ``wrongly not current``
        (search misses one that should be found), ``other text configuration`` (a current chunk's is not its
        document's), ``of another document`` (an event of a version names a chunk that was written with another
        document's version), ``with embeddings marked otherwise`` (a model's embedding of a chunk is current and the
        chunk is not, or the other way), ``with embeddings of no model`` (none that is live), or, of no document,
        ``gone, with embeddings left``.
    """
    shape = _OF_ALL if article_ids is None else _OF_SOME
    of_embeddings = _OF_EMBEDDINGS.format(**shape) + (_LEFT_OVER if article_ids is None else "")
    current = "CASE WHEN deleted_at IS NULL THEN current_version_id END" if deletion else "current_version_id"
    statement = sa.text(
        _BROKEN.format(**shape, current=current, embeddings=of_embeddings if embeddings else "")
    )
    if article_ids is not None:
        statement = statement.bindparams(
            article_ids=several("article_ids", article_ids, UsageError, each=str)
        )
    return statement.columns(article_id=sa.Text, problem=sa.Text, chunk_ids=ARRAY(sa.Uuid))
