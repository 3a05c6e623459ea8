"""Sources: a database that is read in one read-only transaction, and the query that a preset becomes there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
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
from ragschema.importing.preset_queries import (
    Question,
    fill_in,
    find_beside,
    find_jobs,
    find_no_home,
    find_tables,
    shape_of,
)
from ragschema.importing.presets import SOURCE_COLUMNS
from ragschema.state.importable import ANY

FETCHED = 1_000
"""Rows of one round trip."""

_VECTORS = ("vector", "halfvec")
_NUMBERS = ("_float4", "_float8", "_numeric", "_int2", "_int4", "_int8")


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
    deleted_at: datetime | None
    document_metadata: str | None
    start_offset: int | None
    end_offset: int | None
    token_count: int | None
    file_name: str | None
    mime_type: str | None
    byte_size: int | None
    content_hash: str | None
    language: str | None
    collections: str | None


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
        no_home: Columns, and tables beside those that are read, which have no place here.
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
            'SELECT {} FROM ({}\n) AS source {} ORDER BY source.article_id::text COLLATE "C", {}'
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
            "SELECT {}, count(*) FROM ({}\n) AS source WHERE source.embedding IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).format(dimensions, self.query)
        with answered(self.name):
            return dict(self.connection.execute(statement).fetchall())

    def _column(self, name: str) -> sql.Composable:
        if name not in self.columns:
            return sql.SQL(cast(Any, f"NULL::{SOURCE_COLUMNS[name]}"))
        column = sql.Identifier("source", name)
        if name in ("created_at", "deleted_at"):
            return sql.SQL("CASE WHEN isfinite({0}::timestamptz) THEN {0}::timestamptz END").format(column)
        if name == "embedding":
            return column
        type_ = SOURCE_COLUMNS[name].replace("jsonb", "text")
        return sql.SQL("{}::{}").format(column, sql.SQL(cast(Any, type_)))


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
        schema, names, tables = find_tables(connection, question)
        columns = [tables[name] for name in names]
        query = fill_in(question, schema, names, columns)
        no_home = find_no_home(preset, names, columns) + find_beside(connection, preset, schema)
        jobs = find_jobs(connection, preset, schema)
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


def _read_types(
    connection: Connection, name: str, query: sql.Composable
) -> tuple[dict[str, str], int | None]:
    """Return the types of a query's columns, and the dimensions that its embeddings have by their column."""
    with answered(name):
        cursor = connection.execute(sql.SQL("SELECT * FROM ({}\n) AS source LIMIT 0").format(query))
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
