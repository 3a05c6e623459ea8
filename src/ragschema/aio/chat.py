"""The functions of conversations for async code; see `ragschema.chat`."""

from __future__ import annotations

from ragschema import chat
from ragschema.aio.calls import awaited

add_message = awaited(chat.add_message)
branch = awaited(chat.branch)
citation_status = awaited(chat.citation_status)
count_messages = awaited(chat.count_messages)
create_session = awaited(chat.create_session)
delete_session = awaited(chat.delete_session)
erase_citations = awaited(chat.erase_citations)
find_session = awaited(chat.find_session)
give_feedback = awaited(chat.give_feedback)
list_feedback = awaited(chat.list_feedback)
message_path = awaited(chat.message_path)
messages = awaited(chat.messages)
prune_sessions = awaited(chat.prune_sessions)
rename_session = awaited(chat.rename_session)
restore_session = awaited(chat.restore_session)
sessions = awaited(chat.sessions)
withdraw_feedback = awaited(chat.withdraw_feedback)

__all__ = [
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
