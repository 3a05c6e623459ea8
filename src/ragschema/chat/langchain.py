"""Messages of LangChain: read from its objects or their dicts, and written as dicts that ``messages_from_dict`` takes.

    add_message(session, chat_id, langchain.read_message(AIMessage("20 euros.")))
    history = messages_from_dict([langchain.write_message(each) for each in message_path(session, leaf_id)])

LangChain is not imported. What its messages say beside their text is kept in ``metadata["langchain"]``.
"""

from __future__ import annotations

from typing import Any

from ragschema.chat.conversion import count_in, dumped, first_text, kept, text_of
from ragschema.chat.errors import ChatError
from ragschema.chat.records import NewMessage, StoredMessage
from ragschema.schema.chat import Role

_ROLES: dict[str, Role] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}
_TYPES = {"user": "human", "assistant": "ai", "system": "system", "tool": "tool"}
_NAMED: dict[str, Role] = {
    "assistant": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
}


def read_message(message: object) -> NewMessage:
    """Return a message of LangChain as one to add.

    Args:
        message: A `BaseMessage`, or the dict of its type and data that ``message_to_dict`` makes.

    Raises:
        ChatError: It is none, or one that only says what to remove.
    """
    given = dumped(message, lambda each: {"type": each.type, "data": each.model_dump()}, "LangChain")
    kind, data = given.get("type"), given.get("data")
    role = _find_role(str(kind), data if isinstance(data, dict) else {})
    if role is None or not isinstance(data, dict) or not isinstance(data.get("content"), str | list):
        raise ChatError(
            f"A LangChain message of type {kind!r:.60} says nothing.",
            "Pass human, ai, system, tool, function and chat messages, as message_to_dict writes them.",
        )
    rest = {name: value for name, value in data.items() if name != "content"}
    answered, usage = data.get("response_metadata") or {}, data.get("usage_metadata") or {}
    content = data["content"]
    return NewMessage(
        role,
        content if isinstance(content, str) else text_of(content, ""),
        parts=None if isinstance(content, str) else content,
        tool_call_id=first_text(data, "tool_call_id"),
        model=first_text(answered, "model_name", "model"),
        input_tokens=count_in(usage, "input_tokens"),
        output_tokens=count_in(usage, "output_tokens"),
        finish_reason=first_text(answered, "finish_reason", "stop_reason"),
        metadata={"langchain": {"type": kind, "data": rest}},
    )


def write_message(message: NewMessage | StoredMessage) -> dict[str, Any]:
    """Return a message as the dict that LangChain's ``messages_from_dict`` takes.

    One that came from LangChain is what it was; of any other its text, and what LangChain has a place for.
    """
    found = kept(message.metadata or {}, "langchain")
    if found is not None:
        content = message.content if message.parts is None else list(message.parts)
        return {"type": found.get("type"), "data": {**found.get("data", {}), "content": content}}
    data: dict[str, Any] = {"content": message.content}
    if isinstance(message, StoredMessage):
        data["id"] = str(message.id)
    if message.role == "tool":
        data["tool_call_id"] = message.tool_call_id or ""
    if message.role == "assistant":
        said = {"model_name": message.model, "finish_reason": message.finish_reason}
        data["response_metadata"] = {name: value for name, value in said.items() if value is not None}
        if message.input_tokens is not None and message.output_tokens is not None:
            data["usage_metadata"] = {
                "input_tokens": message.input_tokens,
                "output_tokens": message.output_tokens,
                "total_tokens": message.input_tokens + message.output_tokens,
            }
    return {"type": _TYPES[message.role], "data": data}


def _find_role(kind: str, data: dict[str, Any]) -> Role | None:
    kind = kind.removesuffix("MessageChunk").lower()  # a part of a stream that stands for the whole
    return _NAMED.get(str(data.get("role")), "user") if kind == "chat" else _ROLES.get(kind)
