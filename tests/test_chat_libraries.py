"""Messages of other libraries: LangChain's and LlamaIndex's own objects are what they were after a conversation."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy.orm import Session

from conftest import make_database, make_engine
from ragschema import chat
from ragschema.chat import ChatError, NewMessage, langchain, llama_index

database = pytest.fixture(scope="module")(make_database)
engine = pytest.fixture(scope="module")(make_engine)

# what the tests are called by: the messages are imported by the tests that run
OF_LANGCHAIN = (
    *("SystemMessage", "HumanMessage", "HumanMessage", "AIMessage", "ToolMessage", "FunctionMessage"),
    *("ChatMessage", "AIMessageChunk", "AIMessage"),
)
OF_LLAMA_INDEX = ("system", "user", "developer", "assistant", "tool", "model")


def stored(session: Session, given: NewMessage) -> chat.StoredMessage:
    """Return a message as it is read back."""
    said = chat.add_message(session, chat.create_session(session).id, given)
    return chat.message_path(session, said.id)[0]


@pytest.mark.parametrize("number", range(len(OF_LANGCHAIN)), ids=OF_LANGCHAIN)
def test_a_message_of_langchain_is_what_it_was(session: Session, number: int) -> None:
    from library_messages import LANGCHAIN, lc

    assert tuple(type(each).__name__ for each in LANGCHAIN) == OF_LANGCHAIN
    message = LANGCHAIN[number]
    for given in (message, lc.message_to_dict(message)):
        kept = stored(session, langchain.read_message(given))
        assert lc.messages_from_dict([langchain.write_message(kept)]) == [message]
        assert kept.content == "".join(
            each if isinstance(each, str) else each.get("text", "") for each in message.content
        )


def test_what_a_message_of_langchain_says_is_in_the_columns(session: Session) -> None:
    from library_messages import LANGCHAIN

    kept = stored(session, langchain.read_message(LANGCHAIN[3]))
    assert (kept.role, kept.model, kept.finish_reason) == ("assistant", "m-1", "tool_calls")
    assert (kept.input_tokens, kept.output_tokens) == (7, 3)
    assert stored(session, langchain.read_message(LANGCHAIN[4])).tool_call_id == "c-1"


@pytest.mark.parametrize("number", range(len(OF_LLAMA_INDEX)), ids=OF_LLAMA_INDEX)
def test_a_message_of_llama_index_is_what_it_was(session: Session, number: int) -> None:
    from library_messages import LLAMA_INDEX, li

    assert tuple(each.role.value for each in LLAMA_INDEX) == OF_LLAMA_INDEX
    message = LLAMA_INDEX[number]
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
    from library_messages import LANGCHAIN, lc, li

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
    from library_messages import li

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
