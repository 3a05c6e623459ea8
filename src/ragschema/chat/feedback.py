"""Feedback on messages: one of each user."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from ragschema.chat.arguments import check_id, check_texts, check_user
from ragschema.chat.errors import ChatError, unknown_message
from ragschema.chat.records import Feedback
from ragschema.schema.base import Executor


def give_feedback(
    session: Executor, message_id: UUID, user_id: str, rating: int, comment: str | None = None
) -> Feedback:
    """Keep what a user thinks of a message, in the caller's transaction; it takes the place of what was there.

    Args:
        session: In whose transaction.
        message_id: The message.
        user_id: The user.
        rating: 1: good, -1: bad.
        comment: In the user's words.

    Raises:
        ChatError: Something cannot be kept.
        UnknownMessage: There is no such message.
    """
    check_id("message_id", message_id)
    _check_somebody(user_id)
    if isinstance(rating, bool) or not isinstance(rating, int) or rating not in (-1, 1):
        raise ChatError(f"rating is {rating!r:.60}.", "Pass 1, good, or -1, bad.")
    check_texts(comment=comment)
    parameters = {"message_id": message_id, "user_id": user_id, "rating": rating, "comment": comment}
    row = session.execute(_GIVE, parameters).mappings().one_or_none()
    if row is None:
        raise unknown_message(message_id)
    return Feedback(**row)


def withdraw_feedback(session: Executor, message_id: UUID, user_id: str) -> bool:
    """Remove what a user thinks of a message; False: there is nothing."""
    check_id("message_id", message_id)
    _check_somebody(user_id)
    parameters = {"message_id": message_id, "user_id": user_id}
    return session.execute(_WITHDRAW, parameters).first() is not None


def list_feedback(session: Executor, message_id: UUID) -> list[Feedback]:
    """Return what users think of a message, in the order of their keys."""
    check_id("message_id", message_id)
    return [Feedback(**row) for row in session.execute(_LIST, {"message_id": message_id}).mappings()]


def _check_somebody(user_id: object) -> None:
    if not isinstance(user_id, str):
        raise ChatError(f"user_id is {type(user_id).__name__}, and feedback is somebody's.", "Pass a text.")
    check_user(user_id)


_COLUMNS = "message_id, user_id, rating, comment, created_at"
_GIVE = sa.text(f"""
WITH given AS MATERIALIZED (
    SELECT m.id, CAST(:user_id AS text), CAST(:rating AS smallint), CAST(:comment AS text), CURRENT_TIMESTAMP
    FROM rag_chat_messages m WHERE m.id = :message_id FOR KEY SHARE
)
INSERT INTO rag_chat_feedback ({_COLUMNS})
SELECT * FROM given
ON CONFLICT (message_id, user_id) DO UPDATE
SET rating = excluded.rating, comment = excluded.comment, created_at = excluded.created_at
RETURNING {_COLUMNS}
""").columns(message_id=sa.Uuid())
_WITHDRAW = sa.text(
    "DELETE FROM rag_chat_feedback WHERE message_id = :message_id AND user_id = :user_id RETURNING rating"
)
_LIST = sa.text(
    f"SELECT {_COLUMNS} FROM rag_chat_feedback WHERE message_id = :message_id ORDER BY user_id"
).columns(message_id=sa.Uuid())
