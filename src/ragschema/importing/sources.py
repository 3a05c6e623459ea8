"""Sources: a database that is read in one read-only transaction, and the query that a preset becomes there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import sql

from ragschema.database.connecting import begin
from ragschema.database.connections import explained, held_reachable
from ragschema.database.options import Options
from ragschema.database.row_security import is_refusal
from ragschema.database.server import Connection
from ragschema.errors import ImportRefused, UsageError
from ragschema.importing.presets import PRESETS, SOURCE_COLUMNS, Choice, Preset
from ragschema.state.importable import ANY, SHAPES, Columns, match_shape, read_tables

FETCHED = 1_000
"""Rows of one round trip."""

_VECTORS = ("vector", "halfvec")
_NUMBERS = ("_float4", "_float8", "_numeric", "_int4")


class Row(NamedTuple):
    """A row of a source, `SOURCE_COLUMNS` without their place; jsonb as text."""

    article_id: str | None
    content: str | None
    embedding: Any
    title: str | None
    url: str | None
    created_at: datetime | None
    metadata: str | None
    deleted: bool | None
    document_metadata: str | None
    start_offset: int | None
    end_offset: int | None
    token_count: int | None
    file_name: str | None
    mime_type: str | None
    byte_size: int | None
    content_hash: str | None
    language: str | None


@dataclass(frozen=True)
class Source:
    """A source that is open: what to read of it, and how.

    Attributes:
        connection: In a read-only transaction that sees one moment.
        name: What the import of it is called.
        digest: Tells this source, and what is asked of it, from others.
        query: The rows, as a subquery.
        columns: The type of each column that the query has.
        dimensions: Of its embeddings, where their column says it.
        extension: The schema of pgvector there.
        jobs: The query of its unfinished jobs.
        no_home: Columns that have no place here.
    """

    connection: Connection
    name: str
    digest: str
    query: sql.Composable
    columns: Mapping[str, str]
    dimensions: int | None
    extension: str | None
    jobs: sql.Composed | None
    no_home: tuple[str, ...]

    @property
    def embedding_type(self) -> str:
        """The type of its embeddings."""
        return self.columns["embedding"]

    def rows(self, after: str | None) -> Iterator[Row]:
        """Yield the rows in the order of article_id and place, those after a document where one is named.

        A cursor of the server: as many rows are here as one round trip brings, and none that stand before.
        """
        columns = sql.SQL(", ").join(self._column(name) for name in Row._fields)
        past: sql.Composable = sql.SQL("")
        if after is not None:
            past = sql.SQL(
                'WHERE source.article_id::text COLLATE "C" > {} OR source.article_id IS NULL'
            ).format(sql.Literal(after))
        statement = sql.SQL(
            'SELECT {} FROM ({}) AS source {} ORDER BY source.article_id::text COLLATE "C", {}'
        ).format(
            columns,
            self.query,
            past,
            sql.SQL("source.place" if "place" in self.columns else "source.article_id"),
        )
        with answered(self.name), self.connection.cursor("rag_import") as cursor:
            cursor.itersize = FETCHED
            cursor.execute(statement, binary=True)
            yield from map(Row._make, cursor)

    def count_dimensions(self) -> dict[int, int]:
        """Return how many embeddings there are of each number of dimensions; reads each, if their column says none."""
        embedding = sql.SQL("source.embedding")
        if self.dimensions is not None:
            dimensions: sql.Composable = sql.Literal(self.dimensions)
        elif self.embedding_type in _VECTORS:
            function = sql.Identifier(self.extension or "public", "vector_dims")
            dimensions = sql.SQL("{}({})").format(function, embedding)
        elif self.embedding_type in _NUMBERS:
            dimensions = sql.SQL("cardinality({})").format(embedding)
        else:
            dimensions = sql.SQL("cardinality(string_to_array({}::text, ','))").format(embedding)
        statement = sql.SQL(
            "SELECT {}, count(*) FROM ({}) AS source WHERE source.embedding IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).format(dimensions, self.query)
        with answered(self.name):
            return dict(self.connection.execute(statement).fetchall())

    def _column(self, name: str) -> sql.Composable:
        if name not in self.columns:
            return sql.SQL(cast(Any, f"NULL::{SOURCE_COLUMNS[name]}"))
        column = sql.Identifier("source", name)
        if name == "created_at":
            return sql.SQL("CASE WHEN isfinite({0}) THEN {0}::timestamptz END").format(column)
        if name == "embedding":
            return column
        type_ = SOURCE_COLUMNS[name].replace("jsonb", "text")
        return sql.SQL("{}::{}").format(column, sql.SQL(cast(Any, type_)))


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


@contextmanager
def open_source(options: Options, question: Question) -> Iterator[Source]:
    """Open a source.

    Raises:
        ImportRefused: It has not the tables, or refuses the query.
        UsageError: The question is about what the preset has not.
        DatabaseUnreachable: Its server does not answer.
        ConfigurationError: It refuses this login.
    """
    preset = question.preset
    for name, value, is_taken in (
        ("--collection", question.collection, preset.has_collections),
        ("--document-key", question.key, preset.key is not None),
        ("--table", question.table, ANY in shape_of(preset)),
    ):
        if value is not None and not is_taken:
            raise UsageError(f"The tables of {preset.name} are not read by {name}.", f"Leave {name} out.")
    with held_reachable(options) as held, explained():
        connection = begin(held, held.database).connection
        with connection:
            connection.autocommit = False
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            for setting in ("SET LOCAL TimeZone = 'UTC'", "SET LOCAL cursor_tuple_fraction = 1"):
                connection.execute(setting.encode())
            yield _describe(connection, held, question)
            connection.rollback()


def _describe(connection: Connection, options: Options, question: Question) -> Source:
    preset = question.preset
    jobs: sql.Composed | None = None
    no_home: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    schema = question.schema
    if shape_of(preset):
        schema, names, tables = _find_tables(connection, question)
        columns = [tables[name] for name in names]
        query = _fill_in(question, schema, names, columns)
        no_home = _find_no_home(preset, names, columns)
        jobs = _find_jobs(connection, preset, schema)
    else:
        query = sql.SQL(cast(Any, preset.query)).format()
        if schema is not None:
            path = sql.Identifier(schema).as_string()
            connection.execute(
                "SELECT set_config('search_path', %s || ', ' || current_setting('search_path'), true)",
                (path,),
            )
    row = connection.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'vector'"
    ).fetchone()
    types, dimensions = _read_types(connection, preset.name, query)
    chosen = question.collection or (names[0] if ANY in shape_of(preset) else None)
    where = {
        name: options.database.parameters.get(name)
        for name in ("host", "hostaddr", "port", "dbname", "service")
    }
    told = repr((where, schema, query.as_string(connection)))
    return Source(
        connection,
        f"import {preset.name}" + (f" {chosen}" if chosen else ""),
        hashlib.sha256(told.encode()).hexdigest()[:16],
        query,
        types,
        dimensions,
        row[0] if row else None,
        jobs,
        no_home,
    )


def _find_tables(
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


def _fill_in(
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


def _find_no_home(preset: Preset, names: Sequence[str], columns: Sequence[Columns]) -> tuple[str, ...]:
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


def _find_jobs(connection: Connection, preset: Preset, schema: str) -> sql.Composed | None:
    if preset.jobs is None:
        return None
    row = connection.execute(
        "SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s AND a.attname IN ('id', 'status') HAVING count(*) = 2",
        (schema, preset.jobs_table),
    ).fetchone()
    table = sql.Identifier(schema, preset.jobs_table or "")
    return sql.SQL(cast(Any, preset.jobs)).format(jobs=table) if row is not None else None


def _read_types(
    connection: Connection, name: str, query: sql.Composable
) -> tuple[dict[str, str], int | None]:
    """Return the types of a query's columns, and the dimensions that its embeddings have by their column."""
    with answered(name):
        cursor = connection.execute(sql.SQL("SELECT * FROM ({}) AS source LIMIT 0").format(query))
        described = cursor.description or ()
        oids = [column.type_code for column in described]
        types: dict[int, str] = dict(
            connection.execute(
                "SELECT oid, typname::text FROM pg_type WHERE oid = ANY (%s)", (oids,)
            ).fetchall()
        )
    columns = {column.name: types.get(column.type_code, "text") for column in described}
    if missing := [each for each in ("article_id", "content", "embedding") if each not in columns]:
        raise ImportRefused(
            f"The query of {name} has no column {' and no column '.join(missing)}.",
            f"Name its columns as they are read: {', '.join(SOURCE_COLUMNS)}.",
        )
    if unknown := sorted(columns.keys() - SOURCE_COLUMNS.keys()):
        raise ImportRefused(
            f"The query of {name} has columns that nothing reads: {', '.join(unknown)}.",
            f"Put them into metadata; read are {', '.join(SOURCE_COLUMNS)}.",
        )
    type_ = columns["embedding"]
    if type_ not in (*_VECTORS, *_NUMBERS, "text", "varchar", "unknown"):
        raise ImportRefused(
            f"The embeddings of {name} are of type {type_}, which cannot be read.",
            "Let the query make a vector, a halfvec or an array of numbers of them.",
        )
    place = next(number for number, column in enumerate(described) if column.name == "embedding")
    modifier = cursor.pgresult.fmod(place) if cursor.pgresult and type_ in _VECTORS else -1
    return columns, modifier if modifier > 0 else None


@contextmanager
def answered(name: str) -> Iterator[None]:
    """Turn the refusals of a source into errors that say what to do there.

    Raises:
        ImportRefused: The source refuses a statement.
    """
    try:
        yield
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        said = exc.diag.message_primary or str(exc).strip()
        if state[:2] not in ("42", "22", "3F", "25") or is_refusal(exc):
            raise
        remedies = {
            "42P01": "Name the schema of the table by --from-schema NAME, or the database by --from URL.",
            "42703": "Read tables of this release by --map FILE: its query names the columns.",
            "42501": "Grant the role of --from the right to read: GRANT USAGE ON SCHEMA, GRANT SELECT ON the table.",
            "25006": "Let the query only read: the source is never written.",
        }
        remedy = remedies.get(
            state, "Mend the query or the rows; pgvector's schema must be on the search_path there."
        )
        raise ImportRefused(f"The source refuses to be read by {name}: {said}.", remedy) from exc
