"""Wording of statements that are built once: SQL text, in place of the tree of expressions that it was built of."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Dialect, Select, Subquery, column, text
from sqlalchemy.dialects.postgresql.base import PGDialect

_DIALECT: Dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
_CAST = re.compile(r"(:\w+)::\w+(?:\(\d+\))?(?:\[\])?")


def worded(statement: Select[*tuple[Any, ...]], name: str) -> Subquery:
    """Return a statement as a subquery of the same columns and parameters, which is one piece of text.

    In every call SQLAlchemy makes a key of the whole tree, to find out whether it has compiled the statement before: of
    the search in both tables it takes 0.16 ms as a tree, and 0.02 ms as text.

    Args:
        statement: One without a condition of a caller's. Parameters that have a value become part of the text.
        name: Of the subquery.
    """
    asked = [bind for bind in statement.compile(dialect=_DIALECT).binds.values() if bind.required]
    nothing = dict.fromkeys(bind.key for bind in asked)
    compiled = statement.params(nothing).compile(
        dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
    )
    wording = text(_CAST.sub(r"\1", compiled.string)).bindparams(*asked)  # each driver casts in its own way
    columns = [column(str(each.key), each.type) for each in statement.selected_columns]
    return wording.columns(*columns).subquery(name)
