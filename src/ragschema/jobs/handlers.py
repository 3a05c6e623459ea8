"""Handlers: the functions that do the jobs of a type, looked at before the first job and after each."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Thread
from types import FunctionType, MethodType
from typing import Any, TypeAlias
from uuid import UUID

from ragschema.errors import RagSchemaError
from ragschema.jobs.records import ClaimedJob
from ragschema.values import find_problem

Ignored: TypeAlias = (
    bool
    | int
    | float
    | str
    | bytes
    | list[Any]
    | tuple[Any, ...]
    | dict[Any, Any]
    | set[Any]
    | UUID
    | datetime
    | timedelta
    | Decimal
    | None
)
"""What a handler may return, and nobody reads. No awaitable and no generator: what they stand for has not run."""

Handler: TypeAlias = Callable[[ClaimedJob], Ignored]
"""What does a job in a thread of `work`."""
AsyncHandler: TypeAlias = Callable[[ClaimedJob], Awaitable[Ignored]]
"""What does a job in a task of `work_async`."""

_LAZY = (
    *(Awaitable, Future, Generator, AsyncIterator),  # to be awaited, or asked
    *(map, filter, zip, enumerate),  # to be iterated over, as all of itertools
    *(FunctionType, MethodType, partial, Thread),  # to be called, or to end yet
    *(_GeneratorContextManager, _AsyncGeneratorContextManager),  # to be entered
)
_HOLDERS = (list, tuple, set, frozenset)


class HandlerError(RagSchemaError, TypeError):
    """A handler cannot be run by this worker, or has returned work that nobody has done."""


def check_handlers(handlers: Mapping[str, Any], *, is_async: bool) -> None:
    """Refuse handlers that cannot be run, before any job is claimed.

    Args:
        handlers: By type of job.
        is_async: Whether they are awaited.

    Raises:
        HandlerError: There is none, or one is not callable with a job, would not be run by a call of it, or is
            for the other kind of worker.
    """
    if not isinstance(handlers, Mapping) or not handlers:
        raise HandlerError(
            f"handlers is {'empty' if handlers == {} else type(handlers).__name__}, so no job could be done.",
            "Pass a dict of a function for each type of job.",
        )
    for job_type, handler in handlers.items():
        if problem := find_problem(job_type):
            raise HandlerError(f"The type of job {job_type!r} {problem}.", "Name a type by a plain str.")
        if reason := _find_reason(handler, is_async=is_async):
            fact, remedy = reason
            raise HandlerError(f"The handler of {job_type!r} {fact}.", remedy)


def check_result(job_type: str, result: object) -> None:
    """Refuse what a handler has returned where that is work to do rather than its end.

    Raises:
        HandlerError: It is an awaitable, a generator, a future, a function or the like, or holds one.
    """
    parts = [result, *(result if isinstance(result, _HOLDERS) else ())]
    parts += result.values() if isinstance(result, dict) else ()
    lazy = [part for part in parts if _is_lazy(part)]
    for part in lazy:
        if inspect.iscoroutine(part) or inspect.isgenerator(part):
            part.close()  # or Python warns that it was never awaited
    if not lazy:
        return
    name = _with_article(type(lazy[0]).__name__)
    raise HandlerError(
        f"The handler of {job_type!r} returned {name}, whose work is not done.",
        "Let it do the work before it returns: await it, iterate over it, or wait for its result;"
        " coroutines are for work_async.",
    )


def _is_lazy(result: object) -> bool:
    """Whether a value stands for work to do; rows that a driver has yet to hand over do not."""
    return isinstance(result, _LAZY) or type(result).__module__ == "itertools"


def not_awaitable(job_type: str, result: object) -> HandlerError:
    """Return the error of a handler of `work_async` that is not async."""
    return HandlerError(
        f"The handler of {job_type!r} returned {type(result).__name__}, not an awaitable.",
        "Make it `async def`, or use work, which runs it in a thread.",
    )


def _find_reason(handler: Any, *, is_async: bool) -> tuple[str, str] | None:
    """Return why a handler cannot be run, and what to do; None where it can."""
    if not callable(handler):
        return (
            f"is {type(handler).__name__}, which cannot be called",
            "Pass a function that takes a ClaimedJob.",
        )
    called = _functions_of(handler)
    if isinstance(called[0], type) and not (is_async and hasattr(called[0], "__await__")):
        return "is a class, whose call only makes an object", "Pass an object of it, or one of its methods."
    if any(map(inspect.isgeneratorfunction, called)) or any(map(inspect.isasyncgenfunction, called)):
        return "is a generator function, whose call runs nothing", "Let it return rather than yield."
    if not is_async and any(map(inspect.iscoroutinefunction, called)):
        return "is async, and work runs handlers in threads", "Use work_async, or make it a plain function."
    try:
        inspect.signature(handler).bind(None)
    except TypeError as exc:
        return f"cannot be called with a job alone: {exc}", "Let it take one argument, the ClaimedJob."
    except ValueError:  # builtins have no signature
        pass
    return None


def _functions_of(handler: Any) -> list[Any]:
    """Return what a call of a handler runs: a function, that of a partial, the method of an object."""
    while isinstance(handler, partial):
        handler = handler.func
    method = getattr(type(handler), "__call__", None)  # noqa: B004
    return [handler, method]


def _with_article(name: str) -> str:
    return f"{'an' if name.strip('_')[0].lower() in 'aeiou' else 'a'} {name}"
