"""Statements whose parameters stay their own where they become part of another statement."""

from __future__ import annotations

from typing import Any, TypeVar, TypeVarTuple, cast

from sqlalchemy import CTE, BindParameter, Select, Subquery, bindparam
from sqlalchemy.sql.elements import _anonymous_label
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.sql.selectable import LateralFromClause, ScalarSelect
from sqlalchemy.sql.visitors import cloned_traverse, replacement_traverse

Ts = TypeVarTuple("Ts")
S = TypeVar("S", bound=Select[*tuple[Any, ...]])

_OURS = "rag_"  # how the names of our parameters begin


def composable(statement: S) -> S:
    """Return a statement that is built once for any number of calls, and may be part of another one.

    Alone it takes its values by the names of its parameters. Of two in one statement both would take the values of
    one of them. So wherever SQLAlchemy makes it a part, it gives a copy whose parameters and common table expressions
    are named for that statement.
    """
    statement.__class__ = _Composable  # type: ignore[assignment]
    return statement


class _Composable(Select[*Ts]):
    inherit_cache = True

    def subquery(self, name: str | None = None) -> Subquery:
        return self._part().subquery(name)

    def cte(self, name: str | None = None, recursive: bool = False, nesting: bool = False) -> CTE:
        return self._part().cte(name, recursive, nesting)

    def lateral(self, name: str | None = None) -> LateralFromClause:
        return self._part().lateral(name)

    def scalar_subquery(self) -> ScalarSelect[Any]:
        return self._part().scalar_subquery()

    def self_group(self, against: OperatorType | None = None) -> Any:
        return self._part().self_group(against)

    def _part(self) -> Select[*Ts]:
        values = getattr(self, "_params", {})  # before SQLAlchemy 2.1 its parameters have them
        own: dict[str, BindParameter[Any]] = {}

        def replace(element: Any, **_: Any) -> BindParameter[Any] | None:
            if not isinstance(element, BindParameter) or not element.key.startswith(_OURS):
                return None
            if element.key not in own:
                own[element.key] = _owned(element, values)
            return own[element.key]

        def rename(each: CTE) -> None:
            each.name = _anonymous_label.safe_construct(id(each), str(each.name))

        replaced = replacement_traverse(self, {}, replace)
        part = cast("Select[*Ts]", cloned_traverse(replaced, {}, {"cte": rename}))
        part.__class__ = Select
        return part


def _owned(bind: BindParameter[Any], values: dict[str, Any]) -> BindParameter[Any]:
    return bindparam(
        bind.key,
        values.get(bind.key, bind.value),
        bind.type,
        unique=True,
        expanding=bind.expanding,
        literal_execute=bind.literal_execute,
    )
