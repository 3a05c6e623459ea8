"""Conditions of a caller on a search: their shape, by which a statement is kept, and the values of their parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import BindParameter, ColumnElement, Dialect, Select, Table, TextClause, and_, bindparam
from sqlalchemy.sql.elements import BooleanClauseList, ColumnClause, Grouping
from sqlalchemy.sql.operators import and_ as and_operator
from sqlalchemy.sql.visitors import iterate, replacement_traverse
from sqlalchemy.types import Text, TypeDecorator, TypeEngine

from ragschema.models import Chunk

Where: TypeAlias = ColumnElement[bool] | Callable[[], ColumnElement[bool]]
"""A condition on `Document`, `DocumentVersion` and `Chunk`, or a function without arguments that returns one."""

_ANONYMOUS = re.compile(r"%\(\d+ ")  # SQLAlchemy's name of a parameter without one
_CONSTANT = re.compile(r"\*|\d+|'[^']*'")

S = TypeVar("S", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True)
class Condition:
    """A condition, equal to others of its shape: those that differ in nothing but values.

    Building a search with a condition takes SQLAlchemy 4 ms, so what is built for one serves all of its shape.

    Attributes:
        shape: What SQLAlchemy keeps the compiled SQL of a condition by, and what it leaves out of that.
        given: What the caller passed.
        binds: Its parameters, in the order of SQLAlchemy's key.
    """

    shape: Hashable
    given: ColumnElement[bool] = field(compare=False)
    binds: tuple[BindParameter[Any], ...] = field(compare=False)

    @cached_property
    def _clause(self) -> ColumnElement[bool]:
        """The condition with parameters of known names, for SQLAlchemy numbers its own anew in each statement."""
        named = {
            bind.key: bindparam(
                _name(place, bind),
                type_=bind.type if bind.callable is None else _AskedLate(bind.type),
                expanding=bind.expanding,
                literal_execute=bind.literal_execute,
            )
            for place, bind in enumerate(self.binds)
        }

        def replace(element: Any, **_: Any) -> BindParameter[Any] | None:
            return named.get(element.key) if isinstance(element, BindParameter) else None

        return replacement_traverse(self.given, {}, replace) if named else self.given

    @cached_property
    def parts(self) -> tuple[ColumnElement[bool], ...]:
        """What it is the conjunction of."""
        return tuple(map(_in_parentheses, _conjuncts(self._clause)))

    def of_documents(self) -> list[ColumnElement[bool]]:
        """Return the parts that say nothing of a chunk."""
        return [part for part in self.parts if not _may_read_chunks(part)]

    def of_chunks(self) -> list[ColumnElement[bool]]:
        """Return the parts that may say something of a chunk."""
        return [part for part in self.parts if _may_read_chunks(part)]


def _name(place: int, bind: BindParameter[Any]) -> str:
    """Return the name of a parameter: its caller's, who may give its value when the statement is executed, or ours."""
    if not bind.unique and not _ANONYMOUS.match(bind.key):
        return bind.key
    return f"rag_where_{place}"


def find_condition(where: Where | None) -> Condition | None:
    """Return a caller's condition with its shape; one that SQLAlchemy has no key of is alone of its shape."""
    if where is None:
        return None
    clause: ColumnElement[bool] = and_(_called(where))
    found = clause._generate_cache_key()  # the same by which SQLAlchemy keeps the compiled SQL
    binds = () if found is None else tuple(found.bindparams)
    if found is None or getattr(found, "params", None) or any(map(_is_list_asked_late, binds)):
        return Condition(object(), clause, ())
    left_out = tuple((bind.required, bind.expanding, bind.callable is None) for bind in binds)
    return Condition((found.key, left_out), clause, binds)


def _is_list_asked_late(bind: BindParameter[Any]) -> bool:
    return bind.expanding and bind.callable is not None


def _called(where: Any) -> Any:
    is_clause = isinstance(where, ColumnElement) or hasattr(where, "__clause_element__")
    return where() if callable(where) and not is_clause else where


def _conjuncts(clause: ColumnElement[bool]) -> Iterator[ColumnElement[bool]]:
    inner = clause.element if isinstance(clause, Grouping) else clause
    if isinstance(inner, BooleanClauseList) and inner.operator is and_operator:
        for each in inner.clauses:
            yield from _conjuncts(cast("ColumnElement[bool]", each))
    else:
        yield clause


def _in_parentheses(clause: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return a part that stays whole beside others: text is taken as it is, and may have an OR of its own."""
    is_written = any(_is_written(element) for element in iterate(clause))
    return Grouping(clause) if is_written and not isinstance(clause, Grouping) else clause


def _is_written(element: Any) -> bool:
    return isinstance(element, TextClause) or (isinstance(element, ColumnClause) and element.is_literal)


def _may_read_chunks(clause: ColumnElement[bool]) -> bool:
    """Say whether a condition reads a column of the chunks in its statement's FROM; what is written as text may."""
    return any(
        isinstance(element, TextClause) or (isinstance(element, ColumnClause) and _may_be_of_chunks(element))
        for element in iterate(clause)
    )


def _may_be_of_chunks(column: ColumnClause[Any]) -> bool:
    if column.is_literal:
        return _CONSTANT.fullmatch(column.name) is None
    return column.table is None or (
        isinstance(column.table, Table) and column.table.name == Chunk.__tablename__
    )


def filled(statement: S, condition: Condition | None, values: Mapping[str, Any]) -> S:
    """Return a statement that was built once with its values, and with those of a condition of its shape."""
    given = dict(values)
    for place, bind in enumerate(() if condition is None else condition.binds):
        if bind.callable is not None:
            given[_name(place, bind)] = _Later(bind.callable)
        elif not bind.required:
            given[_name(place, bind)] = bind.value
    return statement.params(given)


@dataclass(frozen=True)
class _Later:
    """A value that is asked for when its statement is executed."""

    ask: Callable[[], Any]


class _AskedLate(TypeDecorator[Any]):
    """A type whose values may be asked for late; a statement that is built once holds nobody's function."""

    impl = Text
    cache_ok = True

    def __init__(self, of: TypeEngine[Any]) -> None:
        super().__init__()
        self.of = of
        self.impl = self.impl_instance = of  # type: ignore[assignment]

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value.ask() if isinstance(value, _Later) else value
