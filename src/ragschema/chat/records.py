"""Records of conversations: a message to add, and what is read back of sessions, messages, citations and feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, get_args
from uuid import UUID

from ragschema.chat.arguments import check_id, check_number, check_texts, check_time
from ragschema.chat.errors import ChatError
from ragschema.schema.chat import Role
from ragschema.values import check_choice, check_text, refuse_one


@dataclass(frozen=True)
class NewMessage:
    """A message to add to a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: The text; that of the parts, where there are parts.
        parts: All of it where it is not text alone, as JSON: images, calls of tools. None where the text is all.
        tool_call_id: Of a tool's message: the call that it answers.
        model: The language model that wrote it.
        input_tokens: Tokens that the model read.
        output_tokens: Tokens that it wrote.
        latency_ms: Milliseconds that it took.
        finish_reason: Why the model stopped, in its own word.
        error_message: Why the message is not whole, where it is not.
        metadata: Of the caller's, as JSON.
        created_at: An aware time, of a message that is moved in; now by default.
    """

    role: Role
    content: str
    parts: Sequence[Any] | None = None
    tool_call_id: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: int | None = None
    finish_reason: str | None = None
    error_message: str | None = None
    metadata: Mapping[str, Any] | None = None
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        check_choice("role", self.role, get_args(Role), ChatError)
        check_text("content", self.content, ChatError)
        check_texts(
            tool_call_id=self.tool_call_id,
            model=self.model,
            finish_reason=self.finish_reason,
            error_message=self.error_message,
        )
        if self.parts is not None:
            refuse_one("parts", self.parts, ChatError, is_ordered=True)
            if not isinstance(
                self.parts, list | tuple
            ):  # what can be read once is not there for a second message
                raise ChatError(f"parts is {type(self.parts).__name__}.", "Pass a list of JSON values.")
        for name in ("input_tokens", "output_tokens", "latency_ms"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise ChatError(
                f"metadata is {type(self.metadata).__name__}, not a mapping.",
                "Pass a dict whose keys are texts.",
            )
        if self.created_at is not None:
            check_time("created_at", self.created_at)


@dataclass(frozen=True)
class SessionCursor:
    """Where a page of sessions ends.

    Attributes:
        updated_at: Of the last session of the page.
        id: Its id.
    """

    updated_at: datetime
    id: UUID

    def __post_init__(self) -> None:
        check_time("updated_at", self.updated_at)
        check_id("id", self.id)


@dataclass(frozen=True)
class StoredSession:
    """A conversation.

    Attributes:
        id: Its id.
        user_id: The caller's own key for whose it is; None: nobody's.
        title: Its title.
        metadata: Of the caller's.
        created_at: When it was begun.
        updated_at: When a message was added last, to the minute.
        deleted_at: When it was deleted for its user; None where it was not.
    """

    id: UUID
    user_id: str | None
    title: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @property
    def cursor(self) -> SessionCursor:
        """Where the next page of `sessions` begins, if this is the last of one."""
        return SessionCursor(self.updated_at, self.id)


@dataclass(frozen=True)
class StoredMessage:
    """A message of a conversation.

    Attributes:
        id: Its id.
        session_id: The conversation.
        parent_id: The message that it follows; None: it begins the conversation.
        position: Counts up as messages are written; where the page before begins, if this is the first of one.
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: The text.
        parts: All of it, where it is not text alone.
        tool_call_id: Of a tool's message: the call that it answers.
        model: The language model that wrote it.
        input_tokens: Tokens that the model read.
        output_tokens: Tokens that it wrote.
        latency_ms: Milliseconds that it took.
        finish_reason: Why the model stopped, in its own word.
        error_message: Why the message is not whole, where it is not.
        metadata: Of the caller's.
        created_at: When it was added: when the transaction began that did.
    """

    id: UUID
    session_id: UUID
    parent_id: UUID | None
    position: int
    role: str
    content: str
    parts: list[Any] | None
    tool_call_id: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    latency_ms: int | None
    finish_reason: str | None
    error_message: str | None
    metadata: dict[str, Any]
    created_at: datetime


class CitationState(StrEnum):
    """What has become of a chunk since a message cited it."""

    current = "current"
    changed_version_kept = "changed_version_kept"
    changed_version_pruned = "changed_version_pruned"
    deleted = "deleted"
    purged = "purged"


@dataclass(frozen=True)
class CitationStatus:
    """A citation, and what has become of what it cites.

    Attributes:
        message_id: The message.
        number: Place among what was found for it, from 1.
        is_cited: Whether the message cites it; else it was only retrieved.
        state: ``current``: the document's current version has this text. ``changed_version_kept``: it has not, and
            the version that had it is kept. ``changed_version_pruned``: that version is gone. ``deleted``: the document
            was deleted and can be brought back. ``purged``: it is gone.
        document_id: The document, as of then; so are all below.
        article_id: The caller's key for it.
        version_id: The version.
        version_number: Its number.
        chunk_id: The chunk.
        ordinal: Its place in the version, from 0.
        start_offset: Where it begins in the source, where that was known.
        end_offset: Where it ends.
        content_hash: SHA-256 of its text in UTF-8.
        quote: Its text; None where it is not cited, or erased.
        title: The version's.
        url: The version's.
        score: Of `hybrid_search`: larger is better.
        distance: Of its embedding: smaller is better.
        erased_at: When quote, title and url were taken out.
    """

    message_id: UUID
    number: int
    is_cited: bool
    state: CitationState
    document_id: UUID
    article_id: str
    version_id: UUID
    version_number: int
    chunk_id: UUID
    ordinal: int
    start_offset: int | None
    end_offset: int | None
    content_hash: bytes
    quote: str | None
    title: str | None
    url: str | None
    score: float | None
    distance: float | None
    erased_at: datetime | None


@dataclass(frozen=True)
class Feedback:
    """What a user thinks of a message.

    Attributes:
        message_id: The message.
        user_id: The user.
        rating: 1: good, -1: bad.
        comment: In the user's words.
        created_at: When it was given, or last changed.
    """

    message_id: UUID
    user_id: str
    rating: int
    comment: str | None
    created_at: datetime


@dataclass(frozen=True)
class ChatPruning:
    """What `prune_sessions` removed, or would remove.

    Attributes:
        sessions: Conversations.
        messages: Their messages.
        citations: What those cite or retrieved.
        feedback: What users think of them.
    """

    sessions: int = 0
    messages: int = 0
    citations: int = 0
    feedback: int = 0

    def __add__(self, other: ChatPruning) -> ChatPruning:
        return ChatPruning(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))
