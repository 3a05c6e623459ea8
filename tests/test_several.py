"""Public arguments that take several values: one value, or a set where order counts, is refused before it is sent."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, get_args, get_origin
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa

import ragschema
from ragschema import chat, embedding_models, graph, jobs, migrations, publishing, queries
from ragschema import collections as collections_of_documents
from ragschema.errors import RagSchemaError
from ragschema.publishing import BulkDocument, VersionPlan
from ragschema.publishing.document_rows import SeenRows
from ragschema.publishing.live_models import NONE_REGISTERED
from ragschema.publishing.reuse import complete

SEVERAL = (
    collections.abc.Sequence,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Set,
    list,
    tuple,
    set,
    frozenset,
)
ORDERED = (collections.abc.Sequence, list, tuple)


class Sessions:
    """A factory of sessions of both kinds, none of which may be used."""

    def __call__(self) -> Sessions:
        return self

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Sessions:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def run_sync(self, function: Callable[[Sessions], Any]) -> Any:
        return function(self)


# What the other arguments of a function may be, by name: enough to come to the argument that is tried.
OTHERS: dict[str, Any] = {
    "session": sa.create_mock_engine("postgresql+psycopg://", lambda *_: None),
    "connection": sa.create_mock_engine("postgresql+psycopg://", lambda *_: None),
    "session_id": UUID(int=1),
    "message_id": UUID(int=1),
    "message": chat.NewMessage("user", "a"),
    "article_id": "a",
    "contents": ["a"],
    "source_hash": "h",
    "chunker_version": "c",
    "embedder_version": "e",
    "embedding": np.ones(768),
    "embeddings": [np.ones(768)],
    "sessions": Sessions(),
    "chunk_ids": [UUID(int=1)],
    "embed": lambda texts: [np.ones(768) for _ in texts],
    "plan": complete(VersionPlan("a", "h", "c", "e", None, None, None), ["a"], SeenRows(NONE_REGISTERED, [])),
    "text": "words",
    "worker": "w",
    "version_id": UUID(int=1),
    "old_version_id": UUID(int=1),
    "new_version_id": UUID(int=2),
    "collection_id": UUID(int=1),
    "keep": 1,
    "a": UUID(int=1),
    "b": UUID(int=2),
    "ids": [UUID(int=1)],
    "chunk_id": UUID(int=1),
    "extractor_version": "x",
    "entities": [],
    "relations": [],
    "lease": timedelta(minutes=1),
}


def find_arguments() -> Iterator[Any]:
    """Yield the function, name and type of each public argument that takes several values, dataclasses' fields too."""
    seen = set()
    rooms = (chat, collections_of_documents, embedding_models, graph, jobs, publishing, queries, migrations)
    for module in (ragschema, *rooms):
        for name in module.__all__:
            function = getattr(module, name)
            if function in seen or not callable(function):
                continue
            seen.add(function)
            if not inspect.isfunction(function) and function is not BulkDocument:
                continue  # an error, a model, a result, the name of a type
            for argument in inspect.signature(function).parameters.values():
                hint = read_hint(function, argument.annotation)
                kinds = {each for each in flatten(hint) if each in SEVERAL}
                if kinds:
                    yield pytest.param(
                        function, argument.name, bool(kinds & set(ORDERED)), id=f"{name}-{argument.name}"
                    )


def read_hint(function: Callable[..., Any], annotation: Any) -> Any:
    """Return the type of an argument; `Any` where its name is known to type checkers only."""
    try:
        return (
            eval(annotation, dict(vars(inspect.getmodule(function))))
            if isinstance(annotation, str)
            else annotation
        )
    except NameError:
        return Any


def flatten(hint: Any) -> Iterator[Any]:
    """Yield the types that a hint allows, a sequence of strings as Sequence."""
    if isinstance(hint, types.UnionType) or get_origin(hint) is typing.Union:
        for each in get_args(hint):
            yield from flatten(each)
    else:
        yield get_origin(hint) or hint


ARGUMENTS = list(find_arguments())


def call(function: Callable[..., Any], name: str, value: Any) -> Any:
    required = {
        parameter.name: OTHERS[parameter.name]
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != name
        and parameter.kind is not parameter.VAR_KEYWORD
        and (parameter.default is parameter.empty or parameter.name in ("keep",))
    }
    if inspect.signature(function).return_annotation == "PublishedVersion" and "plan" not in required:
        required |= {each: OTHERS[each] for each in ("source_hash", "chunker_version", "embedder_version")}
    result = function(**required, **{name: value})
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    if function is BulkDocument:
        result = publishing.documents.check_document(result, NONE_REGISTERED)
    return result


def test_there_are_such_arguments() -> None:
    assert len(ARGUMENTS) >= 10


@pytest.mark.parametrize(("function", "name", "is_ordered"), ARGUMENTS)
def test_one_string_is_not_several(function: Callable[..., Any], name: str, is_ordered: bool) -> None:
    for one in ("ab", b"ab"):
        with pytest.raises(RagSchemaError, match=rf"\b{name}\b.* is one (str|bytes), not several"):
            call(function, name, one)


@pytest.mark.parametrize(("function", "name", "is_ordered"), ARGUMENTS)
def test_one_value_is_not_several(function: Callable[..., Any], name: str, is_ordered: bool) -> None:
    with pytest.raises(RagSchemaError, match=rf"\b{name}\b.* is one UUID, not several"):
        call(function, name, UUID(int=1))


@pytest.mark.parametrize(("function", "name", "is_ordered"), [each for each in ARGUMENTS if each.values[2]])
def test_where_the_order_counts_a_set_is_refused(
    function: Callable[..., Any], name: str, is_ordered: bool
) -> None:
    with pytest.raises(RagSchemaError, match=rf"\b{name}\b.* the order of its values counts"):
        call(function, name, {"a", "b"})
