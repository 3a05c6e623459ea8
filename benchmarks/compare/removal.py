"""Delete a document and prune a version, at 10,000 and at 1,000,000 chunk events; the same rows in both schemas.

Every document has 10 versions of 10 chunks, each version a full copy, and each version after the first has a
'deleted' event that points at a chunk of the one before it. Rows are made on the server, without embeddings.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from compare.measuring import connect, drop, fresh, settle
from compare.report import BASE, OURS, Report
from ragschema import create_engine, migrations
from ragschema.database.settings import Database
from ragschema.publishing import prune_versions, purge_document

VERSIONS = 10
CHUNKS = 10

MAKE_ROWS = (
    "SET session_replication_role = replica",  # rows are consistent as they are made: no trigger, no check
    "INSERT INTO rag_documents (article_id)"
    " SELECT 'article-' || number FROM generate_series(1, {documents}) number",
    "INSERT INTO rag_document_versions"
    " (document_id, version_number, source_hash, chunker_version, embedder_version)"
    " SELECT d.id, number, number::text, 'c1', 'e1'"
    f" FROM rag_documents d, generate_series(1, {VERSIONS}) number",
    "UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v"
    f" WHERE v.document_id = d.id AND v.version_number = {VERSIONS}",
    "INSERT INTO rag_chunks (version_id, ordinal, content{current})"
    " SELECT v.id, ordinal, 'chunk ' || ordinal || ' of ' || v.id{is_current}"
    f" FROM rag_document_versions v, generate_series(0, {CHUNKS - 1}) ordinal",
    "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
    " SELECT version_id, id, ordinal, 'added' FROM rag_chunks",
    "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
    " SELECT v.id, c.id, c.ordinal, 'deleted' FROM rag_document_versions v"
    " JOIN rag_document_versions previous ON previous.document_id = v.document_id"
    "  AND previous.version_number = v.version_number - 1"
    " JOIN rag_chunks c ON c.version_id = previous.id AND c.ordinal = 0",
    "SET session_replication_role = origin",
)


def make_rows(database: Database, events: int, *, at_head: bool) -> None:
    """Fill a database with about as many events."""
    values = {
        "documents": events // (VERSIONS * CHUNKS),
        "current": ", is_current" if at_head else "",
        "is_current": f", v.version_number = {VERSIONS}" if at_head else "",
    }
    with connect(database) as connection:
        for statement in MAKE_ROWS:
            connection.execute(statement.format(**values).encode())
    settle(database, "VACUUM ANALYZE")


class BySql:
    """A service on the base schema, with its own SQL."""

    revision = "20251225170000"

    def __init__(self, database: Database) -> None:
        self.connection = connect(database)

    def close(self) -> None:
        self.connection.close()

    def delete(self, article_id: str) -> None:
        """Delete a document; the foreign keys do the rest."""
        self.connection.execute("DELETE FROM rag_documents WHERE article_id = %s", (article_id,))

    def prune(self, article_id: str) -> None:
        """Delete a document's oldest version: newer events that point at its chunks have to let go first."""
        with self.connection.transaction():
            row = self.connection.execute(
                "SELECT v.id FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id"
                " WHERE d.article_id = %s ORDER BY v.version_number LIMIT 1",
                (article_id,),
            ).fetchone()
            assert row is not None
            self.connection.execute(
                "UPDATE rag_chunk_events SET chunk_id = NULL WHERE event_type = 'deleted'"
                " AND chunk_id IN (SELECT id FROM rag_chunks WHERE version_id = %s)",
                row,
            )
            self.connection.execute("DELETE FROM rag_document_versions WHERE id = %s", row)


class ByUs:
    """This package at head."""

    revision = "head"

    def __init__(self, database: Database) -> None:
        self.engine = create_engine(database.libpq_url())

    def close(self) -> None:
        self.engine.dispose()

    def delete(self, article_id: str) -> None:
        with Session(self.engine) as session, session.begin():
            purge_document(session, article_id)

    def prune(self, article_id: str) -> None:
        with Session(self.engine) as session:
            pruned = prune_versions(session, keep=VERSIONS - 1, article_ids=[article_id])
        assert pruned.versions == 1


WAYS = {BASE: BySql, OURS: ByUs}


def measure(report: Report, server: Database, sizes: tuple[int, ...], rounds: int) -> None:
    """Put the medians of both operations, in both schemas, at each size into the report."""
    for size in sizes:
        for name, make in WAYS.items():
            database = fresh(server, "removal")
            migrations.upgrade(database, make.revision)
            make_rows(database, size, at_head=name == OURS)
            way = make(database)
            seconds: dict[str, list[float]] = {"prune a version": [], "delete a document": []}
            for number in range(1, rounds + 2):
                seconds["prune a version"].append(_seconds(way.prune, f"article-{number}"))
                seconds["delete a document"].append(_seconds(way.delete, f"article-{number + rounds + 1}"))
            way.close()
            for what, each in seconds.items():  # the first of each warms up
                report.put(f"{what} at {size:,} events, ms", name, 1e3 * statistics.median(each[1:]))
            drop(database)
            print(f"removed at {size:,} events: {name}", file=sys.stderr)
    for what in ("delete a document", "prune a version"):
        small, large = (report.rows[f"{what} at {size:,} events, ms"] for size in (sizes[0], sizes[-1]))
        for name in WAYS:
            report.put(f"{what}: {sizes[-1]:,} / {sizes[0]:,} events", name, large[name] / small[name])
        report.at_most(
            f"{what}: time at {sizes[-1]:,} events / at {sizes[0]:,}, flat", large[OURS] / small[OURS], 1.5
        )


def _seconds(work: Callable[[str], None], article_id: str) -> float:
    start = time.perf_counter()
    work(article_id)
    return time.perf_counter() - start
