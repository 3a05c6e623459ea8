"""Messages of LangChain and LlamaIndex: a module of its own, because importing the two takes seconds."""

from __future__ import annotations

from langchain_core import messages as lc
from llama_index.core.base.llms import types as li

__all__ = ["LANGCHAIN", "LLAMA_INDEX", "lc", "li"]

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
