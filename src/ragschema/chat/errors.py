"""Errors of conversations."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.exc import DontWrapMixin

from ragschema.errors import RagSchemaError


class ChatError(RagSchemaError, ValueError, DontWrapMixin):
    """What is said cannot be kept. Raised before anything is sent."""


class UnknownSession(RagSchemaError, LookupError):
    """There is no chat session of this id, or it was deleted."""


class UnknownMessage(RagSchemaError, LookupError):
    """There is no message of this id, or not in the session that it should be in."""


def unknown_session(session_id: UUID) -> UnknownSession:
    return UnknownSession(
        f"There is no chat session {session_id}, or it was deleted.",
        "Create one by create_session, or take a deletion back by restore_session.",
    )


def unknown_message(message_id: UUID) -> UnknownMessage:
    return UnknownMessage(
        f"There is no chat message {message_id}.",
        "Add it first; it goes with its session when that is pruned.",
    )
