"""Messages of other libraries: LangChain's and LlamaIndex's own objects are what they were after a conversation."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain_core import messages as lc
from llama_index.core.base.llms import types as li
from sqlalchemy.orm import Session

from conftest import make_database, make_engine
from ragschema import chat
from ragschema.chat import ChatError, NewMessage, langchain, llama_index

database = pytest.fixture(scope="module")(make_database)
engine = pytest.fixture(scope="module")(make_engine)

LANGCHAIN: list[lc.BaseMessage] = [
    lc.SystemMessage("Be brief."),
    lc.HumanMessage("How much?", name="Ann", id="h-1", additional_kwargs={"x": {"y": [1, None]}}),
    lc.HumanMessage(
        [{"type": "text", "text": "What is "}, {"type": "image_url", "image_url": {"url": "a"}}, "this?"]
    ),
    lc.AIMessage(
        "",
        tool_calls=[{"name": "fare", "args": {"to": "Ulm", "n": 1.5}, "id": "c-1"}],
        invalid_tool_calls=[
            {"name": "f", "args": "{", "id": "c-2", "error": "cut", "type": "invalid_tool_call"}
        ],
        usage_metadata={"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
        response_metadata={"model_name": "m-1", "finish_reason": "tool_calls", "logprobs": None},
    ),
    lc.ToolMessage("20", tool_call_id="c-1", artifact={"rows": [1]}, status="error"),
    lc.FunctionMessage(content="20", name="fare"),
    lc.ChatMessage(content="Hm.", role="critic"),
    lc.AIMessageChunk(content="20 eu", id="run-1"),
    lc.AIMessage([]),
]
LLAMA_INDEX = [
    li.ChatMessage("Be brief.", role="system"),
    li.ChatMessage("How much?", role="user", additional_kwargs={"name": "Ann", "deep": {"a": [1, None]}}),
    li.ChatMessage(role="developer", blocks=[]),
    li.ChatMessage(
        role="assistant",
        blocks=[
            li.ThinkingBlock(content="Hm.", num_tokens=2),
            li.TextBlock(text="20"),
            li.TextBlock(text="euros."),
            li.ToolCallBlock(tool_call_id="c-1", tool_name="fare", tool_kwargs={"to": "Ulm"}),
            li.ImageBlock(image=b"\x00\xff pixels", image_mimetype="image/png"),
        ],
    ),
    li.ChatMessage("20", role="tool", additional_kwargs={"tool_call_id": "c-1"}),
    li.ChatMessage("", role="model"),
]


def stored(session: Session, given: NewMessage) -> chat.StoredMessage:
    """Return a message as it is read back."""
    said = chat.add_message(session, chat.create_session(session).id, given)
    return chat.message_path(session, said.id)[0]


@pytest.mark.parametrize("message", LANGCHAIN, ids=lambda each: type(each).__name__)
def test_a_message_of_langchain_is_what_it_was(session: Session, message: lc.BaseMessage) -> None:
    for given in (message, lc.message_to_dict(message)):
        kept = stored(session, langchain.read_message(given))
        assert lc.messages_from_dict([langchain.write_message(kept)]) == [message]
        assert kept.content == "".join(
            each if isinstance(each, str) else each.get("text", "") for each in message.content
        )


def test_what_a_message_of_langchain_says_is_in_the_columns(session: Session) -> None:
    kept = stored(session, langchain.read_message(LANGCHAIN[3]))
    assert (kept.role, kept.model, kept.finish_reason) == ("assistant", "m-1", "tool_calls")
    assert (kept.input_tokens, kept.output_tokens) == (7, 3)
    assert stored(session, langchain.read_message(LANGCHAIN[4])).tool_call_id == "c-1"


@pytest.mark.parametrize("message", LLAMA_INDEX, ids=lambda each: each.role.value)
def test_a_message_of_llama_index_is_what_it_was(session: Session, message: li.ChatMessage) -> None:
    for given in (message, message.model_dump(mode="json")):
        kept = stored(session, llama_index.read_message(given))
        assert li.ChatMessage.model_validate(llama_index.write_message(kept)) == message
        assert kept.content == (message.content or "")


OURS = [
    NewMessage("system", "Be brief."),
    NewMessage("user", "How much?"),
    NewMessage("assistant", "20.", model="m-1", input_tokens=7, output_tokens=3, finish_reason="stop"),
    NewMessage("tool", "20", tool_call_id="c-1"),
]


def test_messages_that_came_from_nowhere_are_messages_of_both(session: Session) -> None:
    """Their text, and what the other library has a place for."""
    kept = [stored(session, each) for each in OURS]
    of_langchain = lc.messages_from_dict([langchain.write_message(each) for each in kept])
    assert [(each.type, each.content) for each in of_langchain] == [
        ("system", "Be brief."),
        ("human", "How much?"),
        ("ai", "20."),
        ("tool", "20"),
    ]
    again = [langchain.read_message(each) for each in of_langchain]
    assert [(each.model, each.output_tokens, each.tool_call_id) for each in again] == [
        (each.model, each.output_tokens, each.tool_call_id) for each in OURS
    ]
    of_llama_index = [li.ChatMessage.model_validate(llama_index.write_message(each)) for each in kept]
    assert [(each.role.value, each.content) for each in of_llama_index] == [
        (each.role, each.content) for each in OURS
    ]
    crossed = llama_index.write_message(langchain.read_message(LANGCHAIN[2]))
    assert li.ChatMessage.model_validate(crossed).content == "What is this?"


@pytest.mark.parametrize(
    "wrong", [None, "text", {"type": "remove", "data": {"content": ""}}, {"role": 1}, {}]
)
def test_what_is_no_message_is_refused(wrong: Any) -> None:
    for read in (langchain.read_message, llama_index.read_message):
        with pytest.raises(ChatError):
            read(wrong)
    with pytest.raises(ChatError, match="holds what is no JSON"):
        llama_index.read_message(li.ChatMessage("x", additional_kwargs={"raw": object()}))


def test_neither_library_is_imported() -> None:
    script = "import sys, ragschema.chat.langchain, ragschema.chat.llama_index; print(sorted({*sys.modules}))"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "'ragschema.chat.langchain'" in names
    assert "langchain_core" not in names
    assert "llama_index.core" not in names
