"""New messages: below another one, or beside it, with what was found for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

import sqlalchemy as sa

from ragschema.chat.arguments import check_id
from ragschema.chat.citations import INSERT_CITATIONS, KNOWN_DOCUMENTS, write_citations
from ragschema.chat.errors import ChatError, UnknownMessage, unknown_message, unknown_session
from ragschema.chat.message_columns import COLUMNS, TYPES, WRITTEN
from ragschema.chat.records import NewMessage, StoredMessage
from ragschema.database.citus import is_on_citus
from ragschema.json_text import write_json
from ragschema.schema.base import Executor, connection_in


def add_message(
    session: Executor,
    session_id: UUID,
    message: NewMessage,
    *,
    parent_id: UUID | Literal["last"] | None = "last",
    citations: Sequence[object] = (),
    cited: Collection[int] | None = None,
) -> StoredMessage:
    """Add a message to a conversation with what was found for it, by one statement in the caller's transaction.

    Nobody waits for another writer of the conversation: the time of its last message is written once a minute, by
    whoever comes first. On Citus writers of one conversation take turns, each for its transaction.

    Args:
        session: In whose transaction.
        session_id: The conversation.
        message: What was said.
        parent_id: The message that it follows, of the same conversation; None: it begins a tree of its own. By default
            the last one that is committed, or of this transaction: name it where several write at once.
        citations: Rows of `nearest_chunks` or `hybrid_search` in the order in which the model was shown them: [1] is
            the first. Of each its place, hash, score and offsets are kept, and of a cited one the text as a quote; of
            a document that is gone by now neither text, title nor url: it may have been erased meanwhile.
        cited: The numbers of those that the message cites, from 1; all by default. The others are kept as what was
            retrieved.

    Raises:
        ChatError: Something cannot be kept.
        UnknownSession: There is no such conversation, or it was deleted.
        UnknownMessage: The parent is not in it.
    """
    check_id("session_id", session_id)
    if parent_id is not None and parent_id != "last":
        check_id("parent_id", parent_id)
    parameters = _parameters(message, citations, cited) | {"session_id": session_id}
    place: _Place = "first" if parent_id is None else "last"
    if isinstance(parent_id, UUID):
        place, parameters = "below", parameters | {"parent_id": parent_id}
    row = _add(session, place, parameters, _SESSION, session_id)
    if row is None:
        if session.execute(_IS_THERE, {"session_id": session_id}).first() is None:
            raise unknown_session(session_id)
        raise UnknownMessage(
            f"The message {parent_id} is not in the chat session {session_id}.",
            "Pass as parent_id the id of a message of the same session.",
        )
    return StoredMessage(**row)


def branch(
    session: Executor,
    message_id: UUID,
    message: NewMessage,
    *,
    citations: Sequence[object] = (),
    cited: Collection[int] | None = None,
) -> StoredMessage:
    """Add a message beside another one, below the same parent: an answer that is written again, an edited question.

    Args:
        session: In whose transaction.
        message_id: The message beside which it stands; this stays.
        message: What was said.
        citations: As in `add_message`.
        cited: As in `add_message`.

    Raises:
        ChatError: Something cannot be kept.
        UnknownMessage: There is no such message.
        UnknownSession: Its conversation was deleted.
    """
    check_id("message_id", message_id)
    parameters = _parameters(message, citations, cited) | {"message_id": message_id}
    row = _add(session, "beside", parameters, _SESSION_BESIDE, message_id)
    if row is None:
        session_id = session.execute(_SESSION_OF, {"message_id": message_id}).scalar_one_or_none()
        raise unknown_message(message_id) if session_id is None else unknown_session(session_id)
    return StoredMessage(**row)


def _parameters(
    message: NewMessage, citations: Sequence[object], cited: Collection[int] | None
) -> dict[str, Any]:
    if not isinstance(message, NewMessage):
        raise ChatError(
            f"The message is {type(message).__name__}, not NewMessage.", "Pass NewMessage('user', text)."
        )
    parts = None if message.parts is None else list(message.parts)
    return {
        **{name: getattr(message, name) for name in WRITTEN},
        "parts": None if parts is None else write_json(parts, "The parts of the message", ChatError),
        "metadata": write_json(dict(message.metadata or {}), "The metadata of the message", ChatError),
        "created_at": message.created_at,
        "citations": write_citations(citations, cited),
    }


_SAID = ", ".join(WRITTEN)
_GIVEN = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in WRITTEN.items())
_NOBODY = "CAST(NULL AS uuid) AS parent_id, CAST(NULL AS bigint) AS parent_position"
_PARENT = "p.id AS parent_id, p.position AS parent_position"


# Each by itself: a row that is locked beside a subquery's is more than Citus can hand on.
_NEWEST = "(SELECT m.{} FROM rag_chat_messages m WHERE m.session_id = s.id ORDER BY m.position DESC LIMIT 1)"
_OPEN = "s.id = :session_id AND s.deleted_at IS NULL"


_Place: TypeAlias = Literal["first", "last", "below", "beside"]
"""Where a message is added to a session: its first, after its last, below one, beside one."""


def _adding(parent: str, sessions: str, position: str | None = None) -> sa.TextualSelect:
    """Return the statement that adds a message below the parent that is found, with its session's row locked.

    The lock is the foreign key's own, taken before: whoever destroys the session meanwhile leaves no row of ``home``.
    A session that another writer is about to mark is passed over, so that nobody waits until that one commits.

    Args:
        parent: Its columns.
        sessions: What the session ``s`` is selected from, and the condition.
        position: The newest one of the session, to which the message's is the next; by default the column's sequence
            gives it. Where somebody else has taken it, no message is added: its columns are NULL.
    """
    number, numbered, free = "", "", ""
    if position is not None:
        number, numbered = "position, ", f", coalesce({position}, 0) + 1 AS position"
        free = "ON CONFLICT (session_id, position) DO NOTHING"
    return sa.text(f"""
WITH home AS MATERIALIZED (SELECT s.id AS session_id, {parent}{numbered} FROM {sessions} FOR KEY SHARE OF s),
marked AS (
    UPDATE rag_chat_sessions SET updated_at = CURRENT_TIMESTAMP WHERE id = (
        SELECT s.id FROM rag_chat_sessions s WHERE s.id = (SELECT session_id FROM home)
        AND s.updated_at < CURRENT_TIMESTAMP - interval '1 minute' FOR NO KEY UPDATE SKIP LOCKED
    )
), message AS (
    INSERT INTO rag_chat_messages (session_id, {number}parent_position, {_SAID}, parts, metadata, created_at)
    SELECT session_id, {number}parent_position, {_GIVEN}, CAST(CAST(:parts AS text) AS jsonb),
        CAST(CAST(:metadata AS text) AS jsonb), coalesce(CAST(:created_at AS timestamptz), CURRENT_TIMESTAMP)
    FROM home {free} RETURNING {COLUMNS}
), known AS MATERIALIZED ({KNOWN_DOCUMENTS}), cited AS ({INSERT_CITATIONS})
SELECT message.*, home.parent_id FROM home LEFT JOIN message ON true
""").columns(**TYPES)


def _made(*, is_numbered: bool) -> dict[_Place, sa.TextualSelect]:
    newest = _NEWEST.format("position")
    last = f"{_NEWEST.format('id')} AS parent_id, {newest} AS parent_position"
    opened = f"rag_chat_sessions s WHERE {_OPEN}"
    below = (
        "rag_chat_sessions s JOIN rag_chat_messages p ON p.id = :parent_id AND p.session_id = s.id"
        f" WHERE {_OPEN}"
    )
    beside = (
        "rag_chat_messages m JOIN rag_chat_sessions s ON s.id = m.session_id AND s.deleted_at IS NULL"
        " LEFT JOIN rag_chat_messages p ON p.session_id = m.session_id AND p.position = m.parent_position"
        " WHERE m.id = :message_id"
    )
    places: dict[_Place, tuple[str, str]] = {
        "first": (_NOBODY, opened),
        "last": (last, opened),
        "below": (_PARENT, below),
        "beside": (_PARENT, beside),
    }
    position = newest if is_numbered else None
    return {place: _adding(parent, found, position) for place, (parent, found) in places.items()}


_ORDINARY, _ON_CITUS = _made(is_numbered=False), _made(is_numbered=True)
_SESSION = sa.text("SELECT FROM rag_chat_sessions s WHERE s.id = :id FOR NO KEY UPDATE")
_SESSION_BESIDE = sa.text(
    "SELECT s.id FROM rag_chat_messages m JOIN rag_chat_sessions s ON s.id = m.session_id WHERE m.id = :id"
    " FOR NO KEY UPDATE OF s"
)


def _add(
    session: Executor, place: _Place, parameters: dict[str, Any], lock: sa.TextClause, id_: UUID
) -> sa.RowMapping | None:
    """Add a message, and return its row; None where there is nothing to add it to.

    Each node of Citus gives numbers of a range of its own, so that a message written through another would come before
    its parent. Its place in the session is counted instead, by one writer of it at a time, who locks the session's row.
    Where the tenant has just moved, a lock that was taken before is on the old node: the place that another writer has
    taken meanwhile is left to that one, and the next is looked for under a lock on the new node.
    """
    if not is_on_citus(connection_in(session)):
        return session.execute(_ORDINARY[place], parameters).mappings().one_or_none()
    while True:
        session.execute(lock, {"id": id_})
        row = session.execute(_ON_CITUS[place], parameters).mappings().one_or_none()
        if row is None or row["id"] is not None:
            return row


_IS_THERE = sa.text(f"SELECT FROM rag_chat_sessions s WHERE {_OPEN}")
_SESSION_OF = sa.text("SELECT session_id FROM rag_chat_messages WHERE id = :message_id").columns(
    session_id=sa.Uuid()
)
