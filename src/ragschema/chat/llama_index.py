"""Messages of LlamaIndex: read from its objects or their dicts, and written as dicts that ``ChatMessage`` validates.

    add_message(session, chat_id, llama_index.read_message(ChatMessage("20 euros.", role="assistant")))
    history = [ChatMessage.model_validate(llama_index.write_message(each)) for each in message_path(session, leaf_id)]

LlamaIndex is not imported. What its messages say beside their blocks is kept in ``metadata["llama_index"]``.
"""

from __future__ import annotations

from typing import Any

from ragschema.chat.conversion import dumped, first_text, kept, text_of
from ragschema.chat.errors import ChatError
from ragschema.chat.records import NewMessage, StoredMessage
from ragschema.schema.chat import Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_message(message: object) -> NewMessage:
    """Return a message of LlamaIndex as one to add.

    Args:
        message: A `ChatMessage`, or what its ``model_dump(mode="json")`` returns.

    Raises:
        ChatError: It is none.
    """
    given = dumped(message, lambda each: each.model_dump(mode="json"), "LlamaIndex")
    blocks, role = given.get("blocks"), _ROLES.get(str(given.get("role")))
    if role is None or not isinstance(blocks, list):
        raise ChatError(
            f"A LlamaIndex message of role {given.get('role')!r:.60} has no blocks, or no such role.",
            "Pass a ChatMessage, or what its model_dump(mode='json') returns.",
        )
    content = text_of(blocks, "\n")
    extra = given.get("additional_kwargs") or {}
    return NewMessage(
        role,
        content,
        parts=None if blocks == _only(content) else blocks,
        tool_call_id=first_text(extra, "tool_call_id"),
        metadata={"llama_index": {name: value for name, value in given.items() if name != "blocks"}},
    )


def write_message(message: NewMessage | StoredMessage) -> dict[str, Any]:
    """Return a message as the dict that LlamaIndex's ``ChatMessage.model_validate`` takes.

    One that came from LlamaIndex is what it was; of any other its role and its text.
    """
    found = kept(message.metadata or {}, "llama_index")
    if found is not None:
        blocks = _only(message.content) if message.parts is None else list(message.parts)
        return {**found, "blocks": blocks}
    extra = {} if message.tool_call_id is None else {"tool_call_id": message.tool_call_id}
    return {"role": message.role, "additional_kwargs": extra, "blocks": _only(message.content)}


def _only(text: str) -> list[Any]:
    return [{"block_type": "text", "text": text}]
