"""The rows of documents that a plan is made from, read in one statement."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from ragschema.database.arrays import Texts
from ragschema.publishing.live_models import LiveModels
from ragschema.publishing.texts import CheckedContents
from ragschema.publishing.transactions import connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import is_one, rows_of
from ragschema.sql.shortening import named, short


@dataclass(frozen=True)
class SeenRows:
    """What a plan is made from.

    Attributes:
        live: The embedding models that are live.
        rows: A document's own columns beside those of each chunk that a plan may need: the chunks of its current
            version, and those of its other versions whose text is one of the
            contents; where no model is registered, of the latter only those by the embedder that is asked for. A
            document without such a chunk has one row, whose chunk is NULL; one that does not exist has none. Where a
            chunk stands is among its columns if it was asked for.
    """

    live: LiveModels
    rows: Sequence[sa.Row[Any]]


def read_rows(session: Executor, plan: VersionPlan, contents: CheckedContents) -> SeenRows:
    """Return the rows of a document, for what is said of its next version."""
    parameters = {
        "article_id": plan.article_id,
        "embedder_version": plan.embedder_version,
        "contents": Texts(contents.texts),
    }
    rows = _rows(session, [(plan, contents)], parameters, is_several=False)
    return SeenRows(_live_models(rows), [row for row in rows if row.model_id is None])


def read_rows_of_several(
    session: Executor, asked: Sequence[tuple[VersionPlan, CheckedContents]]
) -> Mapping[str, SeenRows]:
    """Return the rows of several documents, by article id."""
    article_ids = [plan.article_id for plan, _ in asked]
    parameters = {
        "article_ids": Texts(article_ids),
        "embedder_versions": Texts({plan.embedder_version for plan, _ in asked}),
        "contents": Texts({text for _, contents in asked for text in contents.texts}),
    }
    rows: defaultdict[str | None, list[sa.Row[Any]]] = defaultdict(list)
    for row in _rows(session, asked, parameters, is_several=True):
        rows[row.article_id].append(row)
    live = _live_models(rows[None])
    return {article_id: SeenRows(live, rows[article_id]) for article_id in article_ids}


def _rows(
    session: Executor,
    asked: Sequence[tuple[VersionPlan, CheckedContents]],
    parameters: dict[str, Any],
    *,
    is_several: bool,
) -> Sequence[sa.Row[Any]]:
    said = _said(plan for plan, _ in asked)
    is_located = any(contents.locations is not None for _, contents in asked)
    statement = _read(is_several=is_several, is_said=said is not None, is_located=is_located)
    if said is not None:
        parameters["said"] = said
    return connection_of(session).execute(statement, parameters).all()


def _said(plans: Iterable[VersionPlan]) -> str | None:
    """Return what is said of metadata and sources as JSON, by article id, for PostgreSQL to compare."""
    said = []
    for plan in plans:
        parts = []
        if plan.metadata is not None:
            parts.append(f'"metadata": {plan.metadata}')
        if plan.source is not None:
            parts.append(f'"source": {json.dumps(astuple(plan.source))}')
        if parts:
            said.append(f"{json.dumps(plan.article_id)}: {{{', '.join(parts)}}}")
    return f"{{{', '.join(said)}}}" if said else None


def _live_models(rows: Iterable[sa.Row[Any]]) -> LiveModels:
    return LiveModels.of_rows(row for row in rows if row.model_id is not None)


_COLUMNS = (
    *("d.article_id", "d.document_id", "d.current_version_id", "d.current_version_number"),
    *("d.current_source_hash", "d.current_chunker_version", "d.current_embedder_version", "d.current_title"),
    *("d.current_url", "d.deleted_at", "d.is_described_otherwise"),
    *("c.id", "c.place", "c.content", "c.is_in_current", "c.is_embedded", "c.is_refused"),
    *("c.version_number", "c.embedder_version", "e.embedded_by", "e.refused_by"),
    *("m.model_id", "m.model_key", "m.dimensions", "m.state"),
)
_LOCATION_COLUMNS = ("c.start_offset", "c.end_offset", "CAST(c.details AS text) AS details")
# No shape here rests on the planner's averages, see index_reads:
# - A full join is never a nested loop, which took 11 s for 4,000 chunks among documents of one.
# - The subquery around the contents hides how many there are: more than work_mem's would not be hashed.
# Each registered model is a row of its own, joined to no document.
_SEEN = f"""
WITH {{said}}documents AS MATERIALIZED (
    SELECT d.article_id, d.id AS document_id, d.current_version_id, d.deleted_at,
        v.version_number AS current_version_number, v.source_hash AS current_source_hash,
        v.chunker_version AS current_chunker_version, v.embedder_version AS current_embedder_version,
        v.title AS current_title, v.url AS current_url,
        {{otherwise}} AS is_described_otherwise,
        (
            SELECT e.id FROM rag_chunk_events e
            WHERE {is_one("e.version_id", "d.current_version_id")}
            ORDER BY e.version_id LIMIT 1  -- or the table is read until a first one is met
        ) IS NOT NULL AS has_events
    FROM rag_documents d
    LEFT JOIN {rows_of("rag_document_versions", "id", "d.current_version_id")} v ON true
    WHERE d.article_id = {{article}}
), manifests AS MATERIALIZED (
    SELECT d.document_id, e.chunk_id, e.ordinal{{event_location}}
    FROM documents d
    CROSS JOIN {rows_of("rag_chunk_events", "version_id", "d.current_version_id")} e
    WHERE e.event_type <> 'deleted'
), written AS MATERIALIZED (
    SELECT d.document_id, c.id, c.ordinal, c.content, c.embedding IS NOT NULL AS is_embedded,
        c.embedding_error IS NOT NULL AS is_refused, h.version_number, h.embedder_version,
        c.version_id = d.current_version_id AND NOT d.has_events AS is_in_current
    FROM documents d
    CROSS JOIN {rows_of("rag_document_versions", "document_id", "d.document_id")} h
    CROSS JOIN {rows_of("rag_chunks", "version_id", "h.id")} c
), chunks AS MATERIALIZED (
    SELECT c.document_id, c.id, coalesce(e.ordinal, c.ordinal) AS place, c.content,
        e.chunk_id IS NOT NULL OR c.is_in_current AS is_in_current, c.is_embedded, c.is_refused,
        c.version_number, c.embedder_version{{chunk_location}}
    FROM written c FULL JOIN manifests e ON e.document_id = c.document_id AND e.chunk_id = c.id
), told AS MATERIALIZED (
    SELECT * FROM chunks c
    WHERE c.id IS NOT NULL AND (
        c.is_in_current
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
SELECT {{columns}}
FROM documents d FULL JOIN told c ON c.document_id = d.document_id
FULL JOIN embeddings e ON e.chunk_id = c.id FULL JOIN models m ON m.document_id = d.document_id
"""
_ONE = {"embedder": ":embedder_version", "article": ":article_id"}
_SEVERAL = {
    "embedder": "ANY(CAST(:embedder_versions AS text[]))",
    "article": "ANY(CAST(:article_ids AS text[]))",
}
_UNLOCATED = {"event_location": "", "chunk_location": ""}
_LOCATED = {
    "event_location": ", e.start_offset, e.end_offset, e.metadata AS details",
    "chunk_location": ", e.start_offset, e.end_offset, e.details",
}
_UNSAID = {"said": "", "otherwise": "false"}
_ITS = "((SELECT of_documents FROM said) -> d.article_id)"
_SAID = {
    "said": "said AS MATERIALIZED (SELECT CAST(CAST(:said AS text) AS jsonb) AS of_documents), ",
    "otherwise": f"""
        coalesce(v.metadata <> ({_ITS} -> 'metadata'), false) OR coalesce(
            jsonb_build_array(v.file_name, v.mime_type, v.byte_size, v.content_hash, v.language)
            <> ({_ITS} -> 'source'),
            false
        )""",
}


@cache
def _read(*, is_several: bool, is_said: bool, is_located: bool) -> sa.TextualSelect:
    """Return the statement that reads documents: one or several, and no more of them than is to be compared."""
    columns = _COLUMNS + _LOCATION_COLUMNS * is_located
    statement = _SEEN.format(
        columns=", ".join(columns),
        **(_SEVERAL if is_several else _ONE),
        **(_SAID if is_said else _UNSAID),
        **(_LOCATED if is_located else _UNLOCATED),
    )
    return named(short(statement), *(re.split(r"[. ]", each)[-1] for each in columns))
