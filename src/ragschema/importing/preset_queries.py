"""Queries of presets, filled in with the tables and columns that a source has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from psycopg import sql

from ragschema.database.server import Connection
from ragschema.errors import ImportRefused
from ragschema.importing.presets import PRESETS, Choice, Preset
from ragschema.state.importable import ANY, SHAPES, Columns, match_shape, read_tables


@dataclass(frozen=True)
class Question:
    """Which rows of a source are asked for.

    Attributes:
        preset: How they are read.
        schema: The schema of the tables; wherever they are by default.
        table: The table, with its schema or without, where its owner has named it.
        collection: The one collection to read.
        key: The key of the metadata that tells which document a row is of; the preset's by default.
    """

    preset: Preset
    schema: str | None = None
    table: str | None = None
    collection: str | None = None
    key: str | None = None


def shape_of(preset: Preset) -> Mapping[str, str]:
    """Return the shape of a preset's tables; a map has none."""
    return SHAPES[preset.name] if PRESETS.get(preset.name) is preset else {}


def find_tables(
    connection: Connection, question: Question
) -> tuple[str, tuple[str, ...], Mapping[str, Columns]]:
    """Return the schema, the names and the columns of a preset's tables."""
    preset, shape = question.preset, shape_of(question.preset)
    schema, _, table = (question.table or "").rpartition(".")
    schema = schema or question.schema or ""
    everywhere = read_tables(connection)
    found = [
        (place, names)
        for place, tables in everywhere.items()
        if not schema or place == schema
        for names in match_shape(shape, tables)
        if not table or names[0] == table
    ]
    if len(found) > 1:
        which = ", ".join(f"{place}.{names[0]}" for place, names in found)
        option = "--table NAME" if ANY in shape else "--from-schema NAME"
        raise ImportRefused(
            f"The source has several tables of {preset.name}: {which}.", f"Name one by {option}."
        )
    if not found:
        raise ImportRefused(
            f"The source has no tables of {preset.name}: {_find_missing(question, shape, everywhere, schema, table)}.",
            "Name their database by --from URL, their schema by --from-schema NAME; tables of another shape are read"
            " by --map FILE.",
        )
    place, names = found[0]
    return place, names, everywhere[place]


def _find_missing(
    question: Question,
    shape: Mapping[str, str],
    everywhere: Mapping[str, Mapping[str, Columns]],
    schema: str,
    table: str,
) -> str:
    """Say what is missing of a shape, in the schema that has the most of it."""
    if ANY in shape:
        wanted = {*shape[ANY].split()}
        tables = {
            f"{place}.{name}": columns
            for place, each in everywhere.items()
            if not schema or place == schema
            for name, columns in each.items()
            if not table or name == table
        }
        if question.table and tables:
            name, columns = next(iter(tables.items()))
            return f"{name} lacks {', '.join(sorted(wanted - columns.keys()))}"
        return f"no table {question.table}" if question.table else f"none with {', '.join(sorted(wanted))}"
    missing: list[list[str]] = []
    for tables_ in [each for place, each in everywhere.items() if not schema or place == schema] or [{}]:
        lacks: list[str] = []
        for name, wanted_ in shape.items():
            if name not in tables_:
                lacks.append(f"no table {name}")
            elif absent := sorted({*wanted_.split()} - tables_[name].keys()):
                lacks.append(f"{name} lacks {', '.join(absent)}")
        missing.append(lacks)
    fewest: list[str] = min(missing, key=lambda lacks: len(lacks))
    return "; ".join(fewest)


def fill_in(
    question: Question, schema: str, names: Sequence[str], columns: Sequence[Columns]
) -> sql.Composable:
    """Return a preset's query of the tables that there are."""
    preset = question.preset
    filled: dict[str, sql.Composable] = {
        "table" + (str(place) if place else ""): sql.Identifier(schema, name)
        for place, name in enumerate(names)
    }
    filled |= {name: _choose(choice, columns) for name, choice in preset.choices.items()}
    filled["key"] = sql.Literal(question.key or preset.key)
    filled["collection"] = sql.Literal(question.collection)
    if preset.metadata is not None:
        filled["metadata"] = _as_jsonb(preset.metadata, columns)
        filled["more"] = _more(preset.metadata, columns, _with_place(preset, preset.metadata.table))
        first = Choice(0, "d", ())
        filled["document_more"] = _more(first, columns, _with_place(preset, 0) | {*preset.left.split()})
    return sql.SQL(cast(Any, preset.query)).format(**filled)


def _choose(choice: Choice, columns: Sequence[Columns]) -> sql.Composable:
    there = [sql.Identifier(choice.alias, name) for name in choice.columns if name in columns[choice.table]]
    if not there:
        return sql.SQL("NULL::text" if choice.is_text else "NULL")
    if not choice.is_text:
        return there[0]
    texts = [sql.SQL("{}::text").format(each) for each in there]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join(texts))


def _as_jsonb(choice: Choice, columns: Sequence[Columns]) -> sql.Composable:
    """Return metadata as jsonb; without U+0000, which json holds and jsonb cannot."""
    name = choice.columns[0]
    type_ = columns[choice.table].get(name)
    column = sql.Identifier(choice.alias, name)
    if type_ is None:
        return sql.SQL("NULL::jsonb")
    if type_ == "jsonb":
        return column
    stripped = sql.SQL("regexp_replace({0}::text, {1}, {2}, 'g')").format(
        column, sql.Literal(r"(?<!\\)((?:\\\\)*)\\u0000"), sql.Literal(r"\1")
    )
    return sql.SQL("CASE WHEN strpos({0}::text, {1}) = 0 THEN {0}::jsonb ELSE {2}::jsonb END").format(
        column, sql.Literal("\\u0000"), stripped
    )


def _more(of: Choice, columns: Sequence[Columns], placed: set[str]) -> sql.Composable:
    """Return the columns of a table that have no other place as one jsonb."""
    pairs = [
        sql.SQL("{}::text, {}").format(sql.Literal(name), sql.Identifier(of.alias, name))
        for name in columns[of.table]
        if name not in placed
    ]
    return sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(pairs))


def _with_place(preset: Preset, table: int) -> set[str]:
    chosen = {name for choice in preset.choices.values() if choice.table == table for name in choice.columns}
    return {*preset.mapped[table].split()} | chosen


def find_no_home(preset: Preset, names: Sequence[str], columns: Sequence[Columns]) -> tuple[str, ...]:
    """Return the columns of a preset's tables that have no place here."""
    of_more = {0} if "{document_more}" in preset.query else set()
    if preset.metadata and "{more}" in preset.query:
        of_more.add(preset.metadata.table)
    left = preset.left.split()
    return tuple(
        f"{names[table]}.{name}"
        for table in range(len(names))
        for name in columns[table]
        if (name not in _with_place(preset, table) and table not in of_more) or (table == 0 and name in left)
    )


def find_jobs(connection: Connection, preset: Preset, schema: str) -> sql.Composed | None:
    """Return a preset's query of unfinished jobs; None where there is no table of them."""
    if preset.jobs is None:
        return None
    row = connection.execute(
        "SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s AND a.attname IN ('id', 'status') HAVING count(*) = 2",
        (schema, preset.jobs_table),
    ).fetchone()
    table = sql.Identifier(schema, preset.jobs_table or "")
    return sql.SQL(cast(Any, preset.jobs)).format(jobs=table) if row is not None else None


def find_beside(connection: Connection, preset: Preset, schema: str) -> tuple[str, ...]:
    """Return the tables of a preset's library that are there, and are not read."""
    rows = connection.execute(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = ANY (%s::text[]) AND c.relkind IN ('r', 'p') ORDER BY 1",
        (schema, list(preset.beside)),
    )
    return tuple(name for (name,) in rows)
