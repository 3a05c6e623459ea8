"""The page of the tables, ``docs/schema.md``: a Mermaid ER diagram, drawn from the models."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

_SHORT = {"timestamp with time zone": "timestamptz", "double precision": "float8"}


def draw_page(metadata: MetaData) -> str:
    """Return the page, diagram included."""
    lines = [
        "# The tables",
        "",
        "Written by `uv run rag migrate freeze` from the models. [schema.sql](../schema.sql) has the indexes,",
        "constraints, functions and triggers too. A line leads from a foreign key to what it refers to; PK, FK and",
        "UK are primary, foreign and unique keys, `null` is a column that may be empty.",
        "",
        "```mermaid",
        *draw_diagram(metadata),
        "```",
    ]
    return "\n".join(lines) + "\n"


def draw_diagram(metadata: MetaData) -> list[str]:
    """Return the lines of an ``erDiagram``: relationships, then tables."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    lines = ["erDiagram"]
    for table in tables:
        foreign_keys = sorted(table.foreign_key_constraints, key=lambda key: list(key.column_keys))
        lines += [f"    {_relationship(table, key)}" for key in foreign_keys]
    for table in tables:
        lines += [
            f"    {table.name} {{",
            *(f"        {_column(column)}" for column in table.columns),
            "    }",
        ]
    return lines


def _relationship(table: Table, key: ForeignKeyConstraint) -> str:
    """Draw one row or none of the referred table, and one row, none or many of this one."""
    referred = "|o" if any(column.nullable for column in key.columns) else "||"
    referring = "o|" if _is_unique(table, set(key.column_keys)) else "o{"
    names = ", ".join(key.column_keys)
    return f'{key.referred_table.name} {referred}--{referring} {table.name} : "{names}"'


def _is_unique(table: Table, names: set[str]) -> bool:
    unique = [key for key in table.constraints if isinstance(key, UniqueConstraint)]
    return any({column.name for column in key.columns} <= names for key in (table.primary_key, *unique))


def _column(column: Column[object]) -> str:
    of_type = column.type.compile(postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    keys = ["PK"] if column.primary_key else []
    keys += ["FK"] if column.foreign_keys else []
    keys += ["UK"] if not column.primary_key and _is_unique(column.table, {column.name}) else []
    parts = [_SHORT.get(of_type, of_type), column.name, ", ".join(keys), '"null"' if column.nullable else ""]
    return " ".join(part for part in parts if part)
