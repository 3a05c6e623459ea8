"""Conversations: sessions, messages in a tree, citations that outlive what they cite, and feedback.

    started = create_session(session, "ann")
    asked = add_message(session, started.id, NewMessage("user", "How much is a ticket?"))
    add_message(session, started.id, NewMessage("assistant", answer), parent_id=asked.id, citations=hits)

Every function takes part in the caller's transaction and commits nothing; those for async code are in
`ragschema.aio.chat`. `ragschema.chat.langchain` and `ragschema.chat.llama_index` read and write the messages of these.
"""

from ragschema.chat.citations import citation_status, erase_citations
from ragschema.chat.errors import ChatError, UnknownMessage, UnknownSession
from ragschema.chat.feedback import give_feedback, list_feedback, withdraw_feedback
from ragschema.chat.message_reads import count_messages, message_path, messages
from ragschema.chat.new_messages import add_message, branch
from ragschema.chat.pruning import prune_sessions
from ragschema.chat.records import (
    ChatPruning,
    CitationState,
    CitationStatus,
    Feedback,
    NewMessage,
    SessionCursor,
    StoredMessage,
    StoredSession,
)
from ragschema.chat.session_life import (
    create_session,
    delete_session,
    find_session,
    rename_session,
    restore_session,
    sessions,
)

__all__ = [
    "ChatError",
    "ChatPruning",
    "CitationState",
    "CitationStatus",
    "Feedback",
    "NewMessage",
    "SessionCursor",
    "StoredMessage",
    "StoredSession",
    "UnknownMessage",
    "UnknownSession",
    "add_message",
    "branch",
    "citation_status",
    "count_messages",
    "create_session",
    "delete_session",
    "erase_citations",
    "find_session",
    "give_feedback",
    "list_feedback",
    "message_path",
    "messages",
    "prune_sessions",
    "rename_session",
    "restore_session",
    "sessions",
    "withdraw_feedback",
]
