"""Reads of messages: the path to one, and a conversation by pages."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from ragschema.chat.arguments import check_id, check_number
from ragschema.chat.errors import unknown_message
from ragschema.chat.message_columns import COLUMNS, TYPES
from ragschema.chat.records import StoredMessage
from ragschema.schema.base import Executor


def message_path(session: Executor, leaf_id: UUID, *, limit: int = 50) -> list[StoredMessage]:
    """Return a message and those above it, the first of them first: what a model is to be told.

    Args:
        session: Reads only.
        leaf_id: The last message of the path.
        limit: How many at most, those nearest to the leaf. Where the first has a ``parent_id``, there are more.

    Raises:
        ChatError: An argument cannot be used.
        UnknownMessage: There is no such message.
    """
    check_id("leaf_id", leaf_id)
    check_number("limit", limit, 1)
    rows = session.execute(_PATH, {"leaf_id": leaf_id, "limit": limit}).mappings().all()
    if not rows:
        raise unknown_message(leaf_id)
    return [StoredMessage(**row) for row in rows]


def messages(
    session: Executor, session_id: UUID, *, before: int | None = None, limit: int = 50
) -> list[StoredMessage]:
    """Return the latest messages of a conversation, all branches of it, in the order in which they were written.

    A page is the same however many are added meanwhile.

    Args:
        session: Reads only.
        session_id: The conversation; of one that is not there there are none.
        before: Those before this one: the ``position`` of the first of the page that was read last.
        limit: How many at most.

    Raises:
        ChatError: An argument cannot be used.
    """
    check_id("session_id", session_id)
    check_number("limit", limit, 1)
    if before is not None:
        check_number("before", before, highest=2**63 - 1)
    parameters = {"session_id": session_id, "limit": limit}
    if before is None:
        rows = session.execute(_LATEST, parameters).mappings()
    else:
        rows = session.execute(_BEFORE, parameters | {"before": before}).mappings()
    return [StoredMessage(**row) for row in rows]


def count_messages(session: Executor, session_id: UUID) -> int:
    """Return how many messages a conversation has, in all its branches."""
    check_id("session_id", session_id)
    return int(session.execute(_COUNT, {"session_id": session_id}).scalar_one())


_COUNT = sa.text("SELECT count(*) FROM rag_chat_messages WHERE session_id = :session_id")
# One message at a time, by the index, whatever the planner makes of a session that has half of all messages.
_ABOVE = (
    "LATERAL (SELECT * FROM rag_chat_messages p"
    " WHERE p.session_id = {0}.session_id AND p.position = {0}.parent_position OFFSET 0)"
)
_PATH = sa.text(f"""
WITH RECURSIVE path AS (
    SELECT m.*, 1 AS depth FROM rag_chat_messages m WHERE m.id = :leaf_id
    UNION ALL
    SELECT p.*, c.depth + 1 FROM path c CROSS JOIN {_ABOVE.format("c")} p WHERE c.depth < :limit
)
SELECT {COLUMNS}, (
    SELECT p.id FROM rag_chat_messages p WHERE p.session_id = path.session_id AND p.position = path.parent_position
) AS parent_id
FROM path ORDER BY position
""").columns(**TYPES)


def _page(before: str = "") -> sa.TextualSelect:
    return sa.text(f"""
SELECT {COLUMNS}, (
    SELECT p.id FROM rag_chat_messages p WHERE p.session_id = page.session_id AND p.position = page.parent_position
) AS parent_id
FROM (
    SELECT * FROM rag_chat_messages WHERE session_id = :session_id{before} ORDER BY position DESC LIMIT :limit
) page
ORDER BY position
""").columns(**TYPES)


_LATEST, _BEFORE = _page(), _page(" AND position < :before")
