"""Pruning of conversations that nobody has continued for long."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ragschema.chat.arguments import check_number, check_time
from ragschema.chat.errors import ChatError
from ragschema.chat.records import ChatPruning
from ragschema.database.atomicity import refuse_autocommit
from ragschema.schema.base import Executor, connection_in

PRUNE_BATCH = 500


def prune_sessions(
    session: Executor, *, before: datetime, batch: int = PRUNE_BATCH, dry_run: bool = False
) -> ChatPruning:
    """Destroy one batch of the conversations without a message since a time, deleted ones too, with all they have.

    Fewer sessions than ``batch`` is the end. A conversation that somebody is writing to is passed over.

    Args:
        session: To be committed after each batch.
        before: An aware time.
        batch: Conversations at most.
        dry_run: Destroy nothing, lock nothing, and count all.

    Raises:
        ChatError: An argument cannot be used, or the session is in autocommit mode.
    """
    check_time("before", before)
    check_number("batch", batch, 1)
    if dry_run:
        return ChatPruning(**session.execute(_COUNT_ALL, {"before": before}).mappings().one())
    refuse_autocommit(connection_in(session), "prune_sessions", ChatError)
    ids = session.execute(_LOCK, {"before": before, "batch": batch}).scalars().all()
    if not ids:
        return ChatPruning()
    # what was committed until the locks were there is seen by the statement that follows
    return ChatPruning(**session.execute(_PRUNE, {"before": before, "ids": list(ids)}).mappings().one())


_OLD = """
s.updated_at < :before AND NOT EXISTS (
    SELECT FROM rag_chat_messages m WHERE m.session_id = s.id AND m.created_at >= :before
)
"""
_LOCK = sa.text(
    f"SELECT s.id FROM rag_chat_sessions s WHERE {_OLD} ORDER BY s.updated_at LIMIT :batch FOR UPDATE SKIP LOCKED"
).columns(id=sa.Uuid())
_COUNTS = """
SELECT (SELECT count(*) FROM gone) AS sessions,
    (SELECT count(*) FROM gone JOIN rag_chat_messages m ON m.session_id = gone.id) AS messages,
    (SELECT count(*) FROM gone JOIN rag_chat_messages m ON m.session_id = gone.id
        JOIN rag_chat_citations c ON c.message_id = m.id) AS citations,
    (SELECT count(*) FROM gone JOIN rag_chat_messages m ON m.session_id = gone.id
        JOIN rag_chat_feedback f ON f.message_id = m.id) AS feedback
"""
_COUNT_ALL = sa.text(
    f"WITH gone AS MATERIALIZED (SELECT s.id FROM rag_chat_sessions s WHERE {_OLD}) {_COUNTS}"
)
_PRUNE = sa.text(
    f"WITH gone AS (DELETE FROM rag_chat_sessions s WHERE s.id = ANY(:ids) AND {_OLD} RETURNING s.id) {_COUNTS}"
)
