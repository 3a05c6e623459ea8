"""Visibility of documents: search finds what a current version says, or nothing where the document is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.database.citus import is_on_citus
from ragschema.publishing.facts import SETTLING, FactChanges, settle_facts
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import is_one, rows_of


def show_version(session: Executor, document_id: UUID, version_id: UUID, text_config: str) -> tuple[int, int]:
    """Make exactly the chunks of a version current, of all that a document has; return how many were shown and hidden.

    The document is locked, and not deleted. The facts that these chunks mention follow.
    """
    shown, hidden = show_chunks(session, document_id, version_id, text_config)
    settle_facts(session, [FactChanges([*shown, *hidden])])
    return len(shown), len(hidden)


def show_chunks(
    session: Executor, document_id: UUID, version_id: UUID, text_config: str
) -> tuple[list[UUID], list[UUID]]:
    """Do what `show_version` does, but for the facts: return which chunks were shown and hidden, to settle these by."""
    parameters = {"document_id": document_id, "version_id": version_id, "text_config": text_config}
    changed = _execute(session, _SHOW, parameters).all()
    return [row.id for row in changed if row.is_current], [row.id for row in changed if not row.is_current]


def hide_documents(session: Executor, since: Mapping[UUID, datetime | None]) -> int:
    """Say of documents, which are locked, that they are deleted; return how many chunks were hidden.

    One that was deleted before keeps its time. The facts that these chunks mention follow.

    Args:
        session: A session or connection.
        since: By document, since when it is deleted; None, and a time that is still to come: from now on.
    """
    parameters = {"document_ids": [*since], "since": [*since.values()]}
    hidden = _execute(session, _HIDE, parameters).scalars().all()
    settle_facts(session, [FactChanges(hidden)])
    return len(hidden)


def show_documents(session: Executor, document_ids: Sequence[UUID]) -> int:
    """Say of documents, which are locked, that they are not deleted; return how many chunks were shown.

    Of each exactly the chunks of its current version are current then. The facts that these chunks mention follow.
    """
    parameters = {"document_ids": list(document_ids)}
    changed = _execute(session, _SHOW_DOCUMENTS, parameters).all()
    settle_facts(session, [FactChanges([row.id for row in changed])])
    return sum(row.is_current for row in changed)


def _execute(session: Executor, statement: sa.TextClause, parameters: dict[str, Any]) -> sa.CursorResult[Any]:
    """Execute a statement that shows or hides; on Citus without the word to triggers, of which there is none."""
    connection = connection_of(session)
    if is_on_citus(connection):
        statement = _to_nobody(statement.text)
    return connection.execute(statement, parameters)


@cache
def _to_nobody(statement: str) -> sa.TextClause:
    return sa.text(statement.replace(_WORD, ""))


def unmark_deleted(session: Executor, document_id: UUID) -> None:
    """Say of a document that it is not deleted, before its chunks are shown."""
    connection_of(session).execute(_UNMARK, {"document_id": document_id})


_WORD = f" AND (SELECT {SETTLING}) IS NOT NULL"
# The shapes are those of where a version is planned, and the reasons too. What is to be updated is worked out before
# the first row is, and with it who settles the facts.
_SHOW = sa.text(f"""
WITH manifest AS MATERIALIZED (
    SELECT e.chunk_id AS id FROM rag_chunk_events e
    WHERE {is_one("e.version_id", ":version_id")} AND e.event_type <> 'deleted'
    UNION
    SELECT c.id FROM rag_chunks c
    WHERE {is_one("c.version_id", ":version_id")}
    AND (
        SELECT e.id FROM rag_chunk_events e WHERE {is_one("e.version_id", ":version_id")}
        ORDER BY e.version_id LIMIT 1
    ) IS NULL
), written AS MATERIALIZED (
    SELECT c.id, c.is_current
    FROM rag_document_versions v
    CROSS JOIN {rows_of("rag_chunks", "version_id", "v.id")} c
    WHERE {is_one("v.document_id", ":document_id")}
), compared AS MATERIALIZED (
    SELECT w.id, w.is_current, m.id IS NOT NULL AS is_listed FROM written w FULL JOIN manifest m ON m.id = w.id
)
UPDATE rag_chunks c
SET is_current = NOT c.is_current,
    text_config = CASE WHEN c.is_current THEN c.text_config ELSE CAST(:text_config AS text) END
WHERE c.id = ANY(ARRAY(
    SELECT id FROM compared WHERE is_current <> is_listed{_WORD}
))
RETURNING c.id, c.is_current
""")
# Chunks are locked in the order of their ids, as workers lock those that they store embeddings of.
_HIDE = sa.text(f"""
WITH marked AS (
    UPDATE rag_documents d SET deleted_at = least(n.since, now()), updated_at = now()
    FROM unnest(CAST(:document_ids AS uuid[]), CAST(:since AS timestamptz[])) AS n (id, since)
    WHERE d.id = n.id AND d.id = ANY(CAST(:document_ids AS uuid[])) AND d.deleted_at IS NULL
), written AS MATERIALIZED (
    SELECT c.id
    FROM unnest((SELECT CAST(:document_ids AS uuid[]))) AS d (id)
    CROSS JOIN {rows_of("rag_document_versions", "document_id", "d.id", "id")} v
    CROSS JOIN {rows_of("rag_chunks", "version_id", "v.id", "id, is_current")} c
    WHERE c.is_current
)
UPDATE rag_chunks SET is_current = false
WHERE id = ANY(ARRAY(
    SELECT c.id FROM rag_chunks c
    WHERE c.id = ANY(ARRAY(SELECT id FROM written)){_WORD} ORDER BY c.id FOR UPDATE
))
RETURNING id
""")
_SHOW_DOCUMENTS = sa.text(f"""
WITH documents AS (
    UPDATE rag_documents SET deleted_at = NULL, updated_at = now() WHERE id = ANY(CAST(:document_ids AS uuid[]))
    RETURNING id, current_version_id, text_config
), manifest AS MATERIALIZED (
    SELECT e.chunk_id AS id
    FROM documents d CROSS JOIN {rows_of("rag_chunk_events", "version_id", "d.current_version_id")} e
    WHERE e.event_type <> 'deleted'
    UNION
    SELECT c.id
    FROM documents d CROSS JOIN {rows_of("rag_chunks", "version_id", "d.current_version_id", "id")} c
    WHERE (
        SELECT e.id FROM rag_chunk_events e WHERE {is_one("e.version_id", "d.current_version_id")}
        ORDER BY e.version_id LIMIT 1
    ) IS NULL
), written AS MATERIALIZED (
    SELECT c.id, c.is_current, d.text_config
    FROM documents d
    CROSS JOIN {rows_of("rag_document_versions", "document_id", "d.id", "id")} v
    CROSS JOIN {rows_of("rag_chunks", "version_id", "v.id", "id, is_current")} c
), wrong AS MATERIALIZED (
    SELECT w.id, w.text_config FROM written w FULL JOIN manifest m ON m.id = w.id
    WHERE w.is_current <> (m.id IS NOT NULL)
)
UPDATE rag_chunks c
SET is_current = NOT c.is_current,
    text_config = CASE WHEN c.is_current THEN c.text_config ELSE wrong.text_config END
FROM wrong
WHERE c.id = wrong.id AND c.id = ANY(ARRAY(
    SELECT c.id FROM rag_chunks c
    WHERE c.id = ANY(ARRAY(SELECT id FROM wrong)){_WORD} ORDER BY c.id FOR UPDATE
))
RETURNING c.id, c.is_current
""")
_UNMARK = sa.text("UPDATE rag_documents SET deleted_at = NULL, updated_at = now() WHERE id = :document_id")
