"""Rows of a tenant: what dropping it would destroy, counted."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from ragschema.database.server import BOOKKEEPING, Connection
from ragschema.state.status import read_current
from ragschema.words import counted

_TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""
_COUNTED = ("rag_documents", "rag_chunks", "rag_jobs", "rag_chat_messages")


@dataclass(frozen=True)
class TenantRows:
    """What a tenant has, that dropping it destroys.

    Attributes:
        schema: Its name.
        revision: The revision it is at; None where it says none.
        documents: The number of documents, deleted ones too.
        chunks: The number of chunks.
        jobs: The number of jobs, finished ones too.
        messages: The number of messages of conversations.
        others: The number of rows in all other tables of ours but those that migrations keep.
    """

    schema: str
    revision: str | None
    documents: int
    chunks: int
    jobs: int
    messages: int
    others: int

    @property
    def total(self) -> int:
        """How many rows that is."""
        return self.documents + self.chunks + self.jobs + self.messages + self.others

    def lines(self) -> list[str]:
        """Return a line for each kind of row that there is."""
        counts = (
            (self.documents, "document"),
            (self.chunks, "chunk"),
            (self.jobs, "job"),
            (self.messages, "message"),
            (self.others, "other row"),
        )
        return [counted(number, noun) for number, noun in counts if number]


def find_tables(connection: Connection, schema: str) -> list[str]:
    """Return the names of a schema's tables but partitions, whoever made them."""
    return [name for (name,) in connection.execute(_TABLES.encode(), (schema,)).fetchall()]


def count_rows(connection: Connection, schema: str) -> TenantRows:
    """Count the rows of a tenant; reads every table of it once."""
    tables = [each for each in find_tables(connection, schema) if each not in BOOKKEEPING]
    counts: dict[str, int] = {}
    for table in tables:
        statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))
        row = connection.execute(statement).fetchone()
        counts[table] = row[0] if row else 0
    current = read_current(connection, schema)
    documents, chunks, jobs, messages = (counts.pop(table, 0) for table in _COUNTED)
    return TenantRows(schema, current, documents, chunks, jobs, messages, sum(counts.values()))
