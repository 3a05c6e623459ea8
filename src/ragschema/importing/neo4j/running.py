"""Imports of a graph: files read as a stream, and written batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa

from ragschema.database.connections import Opened, held_reachable, opened
from ragschema.database.options import Options
from ragschema.database.server import Connection
from ragschema.errors import ImportRefused
from ragschema.importing import positions
from ragschema.importing.neo4j.batches import Written, make_tables, write_nodes, write_relationships
from ragschema.importing.neo4j.files import File, digest_of, find_files, read_files
from ragschema.importing.neo4j.items import Item, Node, Unreadable
from ragschema.importing.neo4j.reports import GraphImport, GraphRefusal
from ragschema.importing.neo4j.rows import Naming, node_row, relationship_row
from ragschema.importing.sessions import connected, lock
from ragschema.migrations.readiness import check_ready
from ragschema.revisions.manifest import read_manifest
from ragschema.state.status import behind, require_current

log = logging.getLogger(__name__)

BATCH = 50_000
"""Nodes and relationships of a transaction."""
_SHOWN = 100  # refusals
_JOB = "neo4j"


@dataclass(frozen=True)
class GraphWishes:
    """How to import a graph.

    Attributes:
        names: Properties that may be the name of an entity: the first that a node has.
        skip_refused: Whether to leave out what cannot be kept, and say so; otherwise the import ends there.
        array_delimiter: What divides the values of arrays, and labels, in CSV.
        batch_size: Nodes and relationships of a transaction.
    """

    names: Sequence[str] = ("name",)
    skip_refused: bool = False
    array_delimiter: str = ";"
    batch_size: int = BATCH


@dataclass
class _Batch:
    """Rows of a transaction, and which is the last that was read."""

    nodes: list[str] = field(default_factory=list)
    relationships: list[str] = field(default_factory=list)
    last: int = 0


@dataclass
class _Run:
    """An import that is under way; ``batch`` is of what is read and not written yet."""

    wishes: GraphWishes
    naming: Naming
    after: int
    batch: _Batch = field(default_factory=_Batch)
    nodes_read: int = 0
    relationships_read: int = 0
    entities: Written = field(default_factory=Written)
    relations: Written = field(default_factory=Written)
    refused: int = 0
    refusals: list[GraphRefusal] = field(default_factory=list)

    def batches(self, items: Iterator[Item]) -> Iterator[_Batch]:
        """Yield what is read in batches; the last may be empty."""
        for item in items:
            self.take(item)
            if len(self.batch.nodes) + len(self.batch.relationships) >= self.wishes.batch_size:
                yield self.batch
                self.batch = _Batch(last=self.batch.last)
        yield self.batch

    def take(self, item: Item) -> None:
        """Make a row of what is read; nodes that were done before are needed for what they have become."""
        self.batch.last = item.place
        if isinstance(item, Unreadable):
            self.refuse(item.where, item.reason)
            return
        try:
            if isinstance(item, Node):
                self.batch.nodes.append(node_row(item, self.naming))
                self.nodes_read += 1
            elif item.place > self.after:
                self.batch.relationships.append(relationship_row(item, self.naming))
                self.relationships_read += 1
        except ValueError as exc:
            self.refuse(f"{'node' if isinstance(item, Node) else 'relationship'} {item.place}", str(exc))

    def refuse(self, where: str, reason: str) -> None:
        """Note what cannot be kept.

        Raises:
            ImportRefused: It is not to be left out.
        """
        if not self.wishes.skip_refused:
            raise _cannot_be_kept(where, reason)
        self.refused += 1
        if len(self.refusals) < _SHOWN:
            self.refusals.append(GraphRefusal(where, reason))

    def note(self, entities: Written, relations: Written) -> None:
        """Note what became of a batch."""
        for place, reason in relations.refused:
            self.refuse(f"relationship {place}", reason)
        self.entities = _sum(self.entities, entities)
        self.relations = _sum(self.relations, relations)


def import_graph(
    options: Options,
    paths: Sequence[Path],
    wishes: GraphWishes | None = None,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
) -> GraphImport:
    """Import a graph that Neo4j has exported, with a commit for each batch.

    Files are read as streams. Nodes come before the relationships between them, as in every export. Interrupted, the
    next import of the same files goes on behind the last batch that was committed; after the end an import changes what
    the files have changed. What is imported is current without a chunk that mentions it.

    Args:
        options: The database to import into.
        paths: JSON lines of apoc.export.json, or CSV of neo4j-admin import: files of nodes and of relationships.
        wishes: How to import.
        dry_run: Whether to do everything in one transaction, and to take it back. Others who write the same entities
            wait meanwhile.
        progress: Called after each batch with the number of nodes and relationships that were read.

    Raises:
        ImportRefused: A file cannot be read, or something in it cannot be kept.
        LockNotObtained: The same import is running.
        UnmanagedDatabase: The database has not our tables.
        PendingRevisions: It is not at head.
    """
    wishes = wishes or GraphWishes()
    files = find_files(paths)
    digest = digest_of(files, tuple(wishes.names), wishes.array_delimiter)
    with ExitStack() as stack:
        held = stack.enter_context(held_reachable(options))
        at = stack.enter_context(opened(held))
        aside = stack.enter_context(opened(replace(held, is_announced=True)))
        current = require_current(at.connection, at.schemas.target)
        if read_manifest().pending(current):
            raise behind(current, read_manifest().head, "Run `rag migrate`.")
        check_ready(at.connection, at.schemas.target)
        if not dry_run:
            lock(aside, _JOB)
        return _import(stack, at, files, digest, wishes, dry_run=dry_run, progress=progress)


def _import(
    stack: ExitStack,
    at: Opened,
    files: Sequence[File],
    digest: str,
    wishes: GraphWishes,
    *,
    dry_run: bool,
    progress: Callable[[int], object] | None,
) -> GraphImport:
    connection = stack.enter_context(connected(at))
    position = None
    with connection.begin():
        make_tables(at.connection)
        if not dry_run:
            position = positions.begin(connection, _JOB, digest)
    after = int(position.after or 0) if position else 0
    if after:
        log.info("Going on after %s nodes and relationships.", f"{after:,}")
    run = _Run(wishes, Naming(wishes.names, digest[:8]), after)

    def write(batch: _Batch) -> tuple[int, Written, Written]:
        with connection.begin() if position is not None else nullcontext():
            written = _write(at.connection, batch, skip_refused=wishes.skip_refused)
            if position is not None and batch.last > after:
                positions.move(connection, position, str(batch.last))
        return (batch.last, *written)

    kept = connection.begin() if position is None else None
    last = 0
    for last, *written in _in_turns(write, run.batches(read_files(files, wishes.array_delimiter))):
        run.note(*written)
        if progress is not None:
            progress(last)
    if kept is not None:
        kept.rollback()
    elif position is not None:
        with connection.begin():
            positions.end(connection, position, last)
            for table in ("rag_entities", "rag_relations"):
                connection.execute(sa.text(f"ANALYZE {table}"))
    return GraphImport(
        tuple(file.path.name for file in files),
        dry_run,
        after,
        run.nodes_read,
        run.entities.added,
        run.entities.changed,
        run.relationships_read,
        run.relations.added,
        run.relations.changed,
        run.refused,
        tuple(run.refusals),
    )


def _in_turns(
    write: Callable[[_Batch], tuple[int, Written, Written]], batches: Iterator[_Batch]
) -> Iterator[tuple[int, Written, Written]]:
    """Write each batch while the next is read; one that is begun is waited for, whatever fails meanwhile."""
    with ThreadPoolExecutor(1, "rag graph import") as thread:
        writing: Future[tuple[int, Written, Written]] | None = None
        for batch in batches:
            if writing is not None:
                yield writing.result()
            writing = thread.submit(write, batch)
        if writing is not None:
            yield writing.result()


def _write(connection: Connection, batch: _Batch, *, skip_refused: bool) -> tuple[Written, Written]:
    """Write the rows of a batch in the connection's transaction.

    Raises:
        ImportRefused: A relationship is of no node, and is not to be left out.
    """
    entities = write_nodes(connection, batch.nodes) if batch.nodes else Written()
    relations = write_relationships(connection, batch.relationships) if batch.relationships else Written()
    if relations.refused and not skip_refused:
        place, reason = relations.refused[0]
        raise _cannot_be_kept(f"relationship {place}", reason)
    return entities, relations


def _cannot_be_kept(where: str, reason: str) -> ImportRefused:
    return ImportRefused(
        f"A graph cannot be imported whole: {where}: {reason}.",
        "Mend it in the source, or pass --skip-refused to leave such out; what was imported stays.",
    )


def _sum(one: Written, other: Written) -> Written:
    return Written(one.added + other.added, one.changed + other.changed)
