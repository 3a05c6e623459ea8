"""Calls of a function that takes a session, from async code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

P = ParamSpec("P")
E = TypeVar("E")
T = TypeVar("T")

AsyncExecutor: TypeAlias = AsyncSession | AsyncConnection
"""Who holds the transaction that a function takes part in."""


def awaited(
    function: Callable[Concatenate[E, P], T],
) -> Callable[Concatenate[AsyncExecutor, P], Coroutine[Any, Any, T]]:
    """Return a function as a coroutine function of an AsyncSession or AsyncConnection: the same statements."""

    @wraps(function)
    async def call(session: AsyncExecutor, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await session.run_sync(lambda sync: function(sync, *args, **kwargs))  # type: ignore[arg-type]

    return call


def awaited_on_connection(
    function: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]]:
    """Return a function that commits by itself, so that a session is refused, as a coroutine function."""
    return awaited(function)
