"""The rows of documents that a plan is made from, read in one statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ragschema.publishing.live_models import LiveModels
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import is_one, rows_of


@dataclass(frozen=True)
class SeenRows:
    """What a plan is made from.

    Attributes:
        live: The embedding models that are live.
        rows: A document's own columns beside those of each chunk that a plan may need: the chunks of its current
            version, those that are current all the same, and those of its other versions whose text is one of the
            contents; where no model is registered, of the latter only those by the embedder that is asked for. A
            document without such a chunk has one row, whose chunk is NULL; one that does not exist has none.
    """

    live: LiveModels
    rows: Sequence[sa.Row[Any]]


def read_rows(
    session: Executor, article_id: str, embedder_version: str | None, contents: Sequence[str]
) -> SeenRows:
    """Return the rows of a document."""
    parameters = {"article_id": article_id, "embedder_version": embedder_version, "contents": list(contents)}
    rows = connection_of(session).execute(_READ, parameters).all()
    return SeenRows(_live_models(rows), [row for row in rows if row.model_id is None])


def read_rows_of_several(
    session: Executor,
    article_ids: Sequence[str],
    embedder_versions: Collection[str | None],
    contents: Collection[str],
) -> Mapping[str, SeenRows]:
    """Return the rows of several documents, by article id."""
    parameters = {
        "article_ids": list(article_ids),
        "embedder_versions": list(embedder_versions),
        "contents": list(contents),
    }
    rows: defaultdict[str | None, list[sa.Row[Any]]] = defaultdict(list)
    for row in connection_of(session).execute(_READ_MANY, parameters):
        rows[row.article_id].append(row)
    live = _live_models(rows[None])
    return {article_id: SeenRows(live, rows[article_id]) for article_id in article_ids}


def _live_models(rows: Iterable[sa.Row[Any]]) -> LiveModels:
    return LiveModels.of_rows(row for row in rows if row.model_id is not None)


# No shape here rests on the planner's averages, see index_reads:
# - A full join is never a nested loop, which took 11 s for 4,000 chunks among documents of one.
# - The subquery around the contents hides how many there are: more than work_mem's would not be hashed.
# Each registered model is a row of its own, joined to no document.
_SEEN = f"""
WITH documents AS MATERIALIZED (
    SELECT d.article_id, d.id AS document_id, d.current_version_id, d.deleted_at,
        v.version_number AS current_version_number, v.source_hash AS current_source_hash,
        v.chunker_version AS current_chunker_version, v.embedder_version AS current_embedder_version,
        v.title AS current_title, v.url AS current_url,
        (
            SELECT e.id FROM rag_chunk_events e
            WHERE {is_one("e.version_id", "d.current_version_id")}
            ORDER BY e.version_id LIMIT 1  -- or the table is read until a first one is met
        ) IS NOT NULL AS has_events
    FROM rag_documents d
    LEFT JOIN {rows_of("rag_document_versions", "id", "d.current_version_id")} v ON true
    WHERE d.article_id = {{article}}
), manifests AS MATERIALIZED (
    SELECT d.document_id, e.chunk_id, e.ordinal
    FROM documents d
    CROSS JOIN {rows_of("rag_chunk_events", "version_id", "d.current_version_id")} e
    WHERE e.event_type <> 'deleted'
), written AS MATERIALIZED (
    SELECT d.document_id, c.id, c.ordinal, c.content, c.embedding IS NOT NULL AS is_embedded,
        c.embedding_error IS NOT NULL AS is_refused, c.is_current, h.version_number, h.embedder_version,
        c.version_id = d.current_version_id AND NOT d.has_events AS is_in_current
    FROM documents d
    CROSS JOIN {rows_of("rag_document_versions", "document_id", "d.document_id")} h
    CROSS JOIN {rows_of("rag_chunks", "version_id", "h.id")} c
), chunks AS MATERIALIZED (
    SELECT c.document_id, c.id, coalesce(e.ordinal, c.ordinal) AS place, c.content,
        e.chunk_id IS NOT NULL OR c.is_in_current AS is_in_current, c.is_current, c.is_embedded, c.is_refused,
        c.version_number, c.embedder_version
    FROM written c FULL JOIN manifests e ON e.document_id = c.document_id AND e.chunk_id = c.id
), told AS MATERIALIZED (
    SELECT * FROM chunks c
    WHERE c.id IS NOT NULL AND (
        c.is_in_current OR c.is_current
        OR (c.embedder_version = {{embedder}} OR EXISTS (SELECT FROM rag_embedding_models))
        AND c.content IN (SELECT unnest FROM unnest((SELECT CAST(:contents AS text[]))))
    )
), embeddings AS MATERIALIZED (
    SELECT e.chunk_id, array_agg(e.model_id) FILTER (WHERE e.embedding IS NOT NULL) AS embedded_by,
        array_agg(e.model_id) FILTER (WHERE e.embedding IS NULL) AS refused_by
    FROM rag_chunk_embeddings e WHERE e.chunk_id = ANY(ARRAY(SELECT id FROM told)) GROUP BY e.chunk_id
), models AS (
    SELECT CAST(NULL AS uuid) AS document_id, id AS model_id, key AS model_key, dimensions, state
    FROM rag_embedding_models
)
SELECT d.article_id, d.document_id, d.current_version_id, d.current_version_number, d.current_source_hash,
    d.current_chunker_version, d.current_embedder_version, d.current_title, d.current_url, d.deleted_at,
    c.id, c.place, c.content, c.is_in_current, c.is_current, c.is_embedded, c.is_refused,
    c.version_number, c.embedder_version, e.embedded_by, e.refused_by,
    m.model_id, m.model_key, m.dimensions, m.state
FROM documents d FULL JOIN told c ON c.document_id = d.document_id
FULL JOIN embeddings e ON e.chunk_id = c.id FULL JOIN models m ON m.document_id = d.document_id
"""
_READ = sa.text(_SEEN.format(embedder=":embedder_version", article=":article_id"))
_READ_MANY = sa.text(
    _SEEN.format(
        embedder="ANY(CAST(:embedder_versions AS text[]))", article="ANY(CAST(:article_ids AS text[]))"
    )
)
