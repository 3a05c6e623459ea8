"""Differences between the models and a database: one definition of what counts, for every command."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic_postgresql_enum import Config, set_configuration
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Enum, Index
from sqlalchemy.schema import SchemaItem

from ragschema.migrations import routine_comparison
from ragschema.migrations.alembic_plugins import plugin_names
from ragschema.models import Base
from ragschema.revisions.files import revision_paths, versions_directory

_OUR_ENUMS = {
    column.type.name
    for table in Base.metadata.tables.values()
    for column in table.columns
    if isinstance(column.type, Enum)
}
# importing alembic_postgresql_enum makes autogenerate compare enum types; it would drop those it does not know
set_configuration(Config(drop_unused_enums=False, include_name=lambda name: name in _OUR_ENUMS))


def options() -> dict[str, Any]:
    """Return the arguments of ``context.configure`` that concern autogenerate."""
    return {
        "target_metadata": Base.metadata,
        "compare_type": True,
        "compare_server_default": True,
        "include_object": _is_ours,
        "render_item": _render_item,
        "process_revision_directives": _finish_directives,
        "autogenerate_plugins": plugin_names(routine_comparison.NAME),
    }


def _is_ours(
    item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None
) -> bool:
    """Leave alone the tables and indexes that only the database has: somebody made them.

    And an index by an expression with a collation, where both have it: SQLAlchemy reflects it without. `verify`
    compares its definition whole.
    """
    if isinstance(item, Index) and compare_to is not None:
        return not any("COLLATE" in str(each) for each in item.expressions)
    return not (reflected and compare_to is None and kind in ("table", "index"))


def _render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Render every vector column as pgvector's own type: revisions import nothing from ragschema."""
    for vector in (VECTOR, HALFVEC):
        if kind == "type" and isinstance(item, vector):
            context.imports.add(f"from pgvector.sqlalchemy import {vector.__name__}")
            return f"{vector.__name__}({item.dim or ''})"
    return False


def _finish_directives(
    context: MigrationContext,
    revision: str | Iterable[str | None] | Iterable[str],
    directives: list[MigrationScript],
) -> None:
    """Name the revision by the clock; write none where autogenerate found no difference."""
    for directive in directives:
        if not re.fullmatch(r"\d{14}", directive.rev_id or ""):
            directive.rev_id = new_revision_id()
    arguments = context.opts["revision_context"].command_args
    drafted = arguments["autogenerate"] and arguments["message"] is not None  # `alembic check` has none
    if drafted and all(
        directive.upgrade_ops and directive.upgrade_ops.is_empty() for directive in directives
    ):
        directives.clear()


def new_revision_id() -> str:
    """Return a revision id: 14 digits, the UTC time to the second, or what comes after the last there is."""
    last = max((path.name[:14] for path in revision_paths(versions_directory())), default="")
    now = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    return now if now > last else str(int(last) + 1)
