"""Life of chat sessions: begun, listed, named, deleted and brought back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ragschema.chat.arguments import check_id, check_number, check_texts, check_user
from ragschema.chat.errors import ChatError
from ragschema.chat.records import SessionCursor, StoredSession
from ragschema.json_text import write_json
from ragschema.schema.base import Executor

_COLUMNS = "id, user_id, title, metadata, created_at, updated_at, deleted_at"
_TYPES: dict[str, Any] = {"id": sa.Uuid(), "metadata": JSONB()}


def create_session(
    session: Executor,
    user_id: str | None = None,
    *,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StoredSession:
    """Begin a conversation, in the caller's transaction.

    Args:
        session: In whose transaction.
        user_id: The caller's own key for whose it is; None: nobody's.
        title: Shown in lists.
        metadata: JSON.

    Raises:
        ChatError: An argument cannot be kept.
    """
    check_user(user_id)
    check_texts(title=title)
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ChatError(
            f"The session's metadata is {type(metadata).__name__}.", "Pass a dict whose keys are texts."
        )
    written = write_json(dict(metadata or {}), "The metadata of the session", ChatError)
    parameters = {"user_id": user_id, "title": title, "metadata": written}
    return _read(session.execute(_CREATE, parameters).mappings().one())


def find_session(session: Executor, session_id: UUID) -> StoredSession | None:
    """Return a conversation, a deleted one too; None where there is none."""
    check_id("session_id", session_id)
    row = session.execute(_FIND, {"session_id": session_id}).mappings().one_or_none()
    return None if row is None else _read(row)


def sessions(
    session: Executor,
    user_id: str | None,
    *,
    before: SessionCursor | None = None,
    limit: int = 30,
) -> list[StoredSession]:
    """Return the conversations of a user that are not deleted, those with the latest messages first.

    A conversation that is continued between two pages moves to the front: it is returned once, or, where it would have
    been on a later page, not until the first page is read again.

    Args:
        session: Reads only.
        user_id: The user; None: the conversations that are nobody's.
        before: Those after this one: the ``cursor`` of the last of the page before.
        limit: How many at most.

    Raises:
        ChatError: An argument cannot be used.
    """
    check_user(user_id)
    check_number("limit", limit, 1)
    parameters: dict[str, Any] = {"user_id": user_id, "limit": limit}
    statement = _NOBODYS if user_id is None else _USERS
    if before is not None:
        if not isinstance(before, SessionCursor):
            raise ChatError(
                f"before is {type(before).__name__}, not a cursor.",
                "Pass cursor of the last of the page before.",
            )
        parameters |= {"updated_at": before.updated_at, "id": before.id}
        statement = _NOBODYS_BEFORE if user_id is None else _USERS_BEFORE
    return [_read(row) for row in session.execute(statement, parameters).mappings()]


def rename_session(session: Executor, session_id: UUID, title: str | None) -> bool:
    """Give a conversation another title; False: there is none of this id, or it was deleted."""
    check_id("session_id", session_id)
    check_texts(title=title)
    return session.execute(_RENAME, {"session_id": session_id, "title": title}).first() is not None


def delete_session(session: Executor, session_id: UUID, *, for_good: bool = False) -> bool:
    """Delete a conversation; False: there is none of this id that is not deleted already.

    It is not listed any more, takes no more messages, and can be brought back by `restore_session` until
    `prune_sessions` removes it. ``for_good`` destroys it with its messages, citations and feedback at once, a deleted
    one too.
    """
    check_id("session_id", session_id)
    statement = _DESTROY if for_good else _DELETE
    return session.execute(statement, {"session_id": session_id}).first() is not None


def restore_session(session: Executor, session_id: UUID) -> bool:
    """Bring a deleted conversation back; False: there is none of this id that is deleted."""
    check_id("session_id", session_id)
    return session.execute(_RESTORE, {"session_id": session_id}).first() is not None


def _read(row: sa.RowMapping) -> StoredSession:
    return StoredSession(**row)


_CREATE = sa.text(
    "INSERT INTO rag_chat_sessions (user_id, title, metadata) VALUES (CAST(:user_id AS text), CAST(:title AS text),"
    f" CAST(CAST(:metadata AS text) AS jsonb)) RETURNING {_COLUMNS}"
).columns(**_TYPES)
_FIND = sa.text(f"SELECT {_COLUMNS} FROM rag_chat_sessions WHERE id = :session_id").columns(**_TYPES)


def _page(whose: str, after: str = "") -> sa.TextualSelect:
    return sa.text(
        f"SELECT {_COLUMNS} FROM rag_chat_sessions WHERE {whose} AND deleted_at IS NULL{after}"
        " ORDER BY updated_at DESC, id DESC LIMIT :limit"
    ).columns(**_TYPES)


_AFTER = " AND (updated_at, id) < (CAST(:updated_at AS timestamptz), CAST(:id AS uuid))"
_USERS, _USERS_BEFORE = _page("user_id = :user_id"), _page("user_id = :user_id", _AFTER)
_NOBODYS, _NOBODYS_BEFORE = _page("user_id IS NULL"), _page("user_id IS NULL", _AFTER)
_RENAME = sa.text(
    "UPDATE rag_chat_sessions SET title = CAST(:title AS text) WHERE id = :session_id AND deleted_at IS NULL"
    " RETURNING id"
)
_DELETE = sa.text(
    "UPDATE rag_chat_sessions SET deleted_at = CURRENT_TIMESTAMP WHERE id = :session_id AND deleted_at IS NULL"
    " RETURNING id"
)
_RESTORE = sa.text(
    "UPDATE rag_chat_sessions SET deleted_at = NULL WHERE id = :session_id AND deleted_at IS NOT NULL RETURNING id"
)
_DESTROY = sa.text("DELETE FROM rag_chat_sessions WHERE id = :session_id RETURNING id")
