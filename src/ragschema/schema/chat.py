"""The tables of conversations: chat sessions, their messages, what these cite, and what users think of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ragschema.schema.base import Base, Id, Timestamp

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


class ChatSession(Base):
    """A conversation, of a user or of nobody; how many messages it has is counted, not kept."""

    __tablename__ = "rag_chat_sessions"
    __table_args__ = (
        CheckConstraint("octet_length(user_id) <= 2000", name="user_id"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
        Index(
            "rag_chat_sessions_user_id_idx",
            "user_id",
            "updated_at",
            "id",
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(None, "updated_at"),
    )

    id: Mapped[Id]
    user_id: Mapped[str | None] = mapped_column(comment="The caller's own key for whose it is")
    title: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(
        "metadata", server_default=text("'{}'"), comment="An object of the caller's"
    )
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp] = mapped_column(
        comment="When a message was added last, to the minute: later ones of the same minute do not write it"
    )
    deleted_at: Mapped[datetime | None] = mapped_column(
        comment="When it was deleted for its user; its rows stay until it is pruned"
    )


class ChatMessage(Base):
    """What was said in a conversation: a node of a tree, whose branches are the answers that were tried.

    A parent is a message of the same session with a smaller position, so that no message is above itself.
    """

    __tablename__ = "rag_chat_messages"
    __table_args__ = (
        UniqueConstraint("session_id", "position"),
        ForeignKeyConstraint(
            ["session_id", "parent_position"],
            ["rag_chat_messages.session_id", "rag_chat_messages.position"],
            name="rag_chat_messages_parent_position_fkey",
        ),
        CheckConstraint('parent_position < "position"', name="parent_position"),
        CheckConstraint("role = ANY (ARRAY['system', 'user', 'assistant', 'tool'])", name="role"),
        CheckConstraint("jsonb_typeof(parts) = 'array'", name="parts"),
        CheckConstraint("LEAST(input_tokens, output_tokens, latency_ms) >= 0", name="numbers"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
        Index(None, "session_id", "parent_position"),
    )

    id: Mapped[Id]
    session_id: Mapped[UUID] = mapped_column(ForeignKey("rag_chat_sessions.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(
        BigInteger, Identity(), comment="Counts up as messages are written: their order within a session"
    )
    parent_position: Mapped[int | None] = mapped_column(
        BigInteger, comment="Position of the message that it follows; siblings have the same"
    )
    role: Mapped[str] = mapped_column(comment="system, user, assistant or tool")
    content: Mapped[str] = mapped_column(comment="The text; that of its parts, where it has any")
    parts: Mapped[list[Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="All of it, where it is not text alone: images, calls of tools"
    )
    tool_call_id: Mapped[str | None] = mapped_column(comment="Of a tool's message: the call that it answers")
    model: Mapped[str | None] = mapped_column(comment="The language model that wrote it")
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    latency_ms: Mapped[int | None] = mapped_column(comment="Milliseconds that it took to write")
    finish_reason: Mapped[str | None] = mapped_column(comment="Why the model stopped, in its own word")
    error_message: Mapped[str | None] = mapped_column(comment="Why it is not whole, where it is not")
    details: Mapped[dict[str, Any]] = mapped_column(
        "metadata", server_default=text("'{}'"), comment="An object of the caller's"
    )
    created_at: Mapped[Timestamp]


class ChatCitation(Base):
    """A chunk that was found for a message, as it was then; it outlives the document.

    No foreign key leads to documents: an answer can be shown after what it rests on was replaced, pruned or purged.
    """

    __tablename__ = "rag_chat_citations"
    __table_args__ = (
        CheckConstraint("number > 0", name="number"),
        CheckConstraint("octet_length(content_hash) = 32", name="content_hash"),
        CheckConstraint("is_cited OR quote IS NULL", name="quote"),
        CheckConstraint("erased_at IS NULL OR num_nonnulls(quote, title, url) = 0", name="erased_at"),
        Index(None, "document_id"),
        Index(None, "article_id"),
    )

    message_id: Mapped[UUID] = mapped_column(
        ForeignKey("rag_chat_messages.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(
        primary_key=True,
        autoincrement=False,
        comment="Place among what was found, from 1: the [1] of an answer",
    )
    is_cited: Mapped[bool] = mapped_column(
        server_default=true(), comment="Whether the message cites it; else it was only retrieved"
    )
    document_id: Mapped[UUID]
    article_id: Mapped[str]
    version_id: Mapped[UUID]
    version_number: Mapped[int]
    chunk_id: Mapped[UUID]
    ordinal: Mapped[int]
    start_offset: Mapped[int | None]
    end_offset: Mapped[int | None]
    content_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="SHA-256 of the chunk's text in UTF-8")
    quote: Mapped[str | None] = mapped_column(comment="The chunk's text, where it is cited and not erased")
    title: Mapped[str | None]
    url: Mapped[str | None]
    score: Mapped[float | None] = mapped_column(Double, comment="Of hybrid_search: larger is better")
    distance: Mapped[float | None] = mapped_column(Double, comment="Of its embedding: smaller is better")
    erased_at: Mapped[datetime | None] = mapped_column(
        comment="When quote, title and url were taken out, because the document was erased"
    )


class ChatFeedback(Base):
    """What a user thinks of a message."""

    __tablename__ = "rag_chat_feedback"
    __table_args__ = (
        CheckConstraint("rating = ANY (ARRAY[-1, 1])", name="rating"),
        CheckConstraint("octet_length(user_id) <= 2000", name="user_id"),
    )

    message_id: Mapped[UUID] = mapped_column(
        ForeignKey("rag_chat_messages.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[str] = mapped_column(primary_key=True)
    rating: Mapped[int] = mapped_column(SmallInteger, comment="1: good, -1: bad")
    comment: Mapped[str | None]
    created_at: Mapped[Timestamp] = mapped_column(comment="When it was given, or last changed")
