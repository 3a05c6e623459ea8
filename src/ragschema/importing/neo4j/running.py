"""Imports of a graph: files read as a stream, and written batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
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

BATCH = 10_000
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
class _Run:
    """An import that is under way; ``where`` is of the rows that are not written yet."""

    wishes: GraphWishes
    naming: Naming
    after: int
    nodes: list[str] = field(default_factory=list)
    relationships: list[str] = field(default_factory=list)
    last: int = 0
    nodes_read: int = 0
    relationships_read: int = 0
    entities: Written = field(default_factory=Written)
    relations: Written = field(default_factory=Written)
    refused: int = 0
    refusals: list[GraphRefusal] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return len(self.nodes) + len(self.relationships) >= self.wishes.batch_size

    def take(self, item: Item) -> None:
        """Make a row of what is read; nodes that were done before are needed for what they have become."""
        self.last = item.place
        if isinstance(item, Unreadable):
            self.refuse(item.where, item.reason)
            return
        try:
            if isinstance(item, Node):
                self.nodes.append(node_row(item, self.naming))
                self.nodes_read += 1
            elif item.place > self.after:
                self.relationships.append(relationship_row(item, self.naming))
                self.relationships_read += 1
        except ValueError as exc:
            self.refuse(f"{'node' if isinstance(item, Node) else 'relationship'} {item.place}", str(exc))

    def refuse(self, where: str, reason: str) -> None:
        """Note what cannot be kept.

        Raises:
            ImportRefused: It is not to be left out.
        """
        if not self.wishes.skip_refused:
            raise ImportRefused(
                f"A graph cannot be imported whole: {where}: {reason}.",
                "Mend it in the source, or pass --skip-refused to leave such out; what was imported stays.",
            )
        self.refused += 1
        if len(self.refusals) < _SHOWN:
            self.refusals.append(GraphRefusal(where, reason))

    def write(self, connection: Connection) -> None:
        """Write the rows of a batch."""
        if self.nodes:
            self.entities = _sum(self.entities, write_nodes(connection, self.nodes))
        if self.relationships:
            written = write_relationships(connection, self.relationships)
            for place, reason in written.refused:
                self.refuse(f"relationship {place}", reason)
            self.relations = _sum(self.relations, written)
        self.nodes, self.relationships = [], []


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
    kept = connection.begin() if position is None else None
    for item in read_files(files, wishes.array_delimiter):
        run.take(item)
        if run.is_full:
            _flush(run, connection, at.connection, position)
            if progress is not None:
                progress(run.last)
    _flush(run, connection, at.connection, position)
    if kept is not None:
        kept.rollback()
    elif position is not None:
        with connection.begin():
            positions.end(connection, position, run.last)
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


def _flush(
    run: _Run, connection: sa.Connection, driver: Connection, position: positions.Position | None
) -> None:
    if position is None:
        run.write(driver)
        return
    with connection.begin():
        run.write(driver)
        if run.last > run.after:
            positions.move(connection, position, str(run.last))


def _sum(one: Written, other: Written) -> Written:
    return Written(one.added + other.added, one.changed + other.changed)
