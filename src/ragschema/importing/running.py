"""Imports: a source read as a stream, and published batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import sqlalchemy as sa

from ragschema.database.connections import Opened, held_reachable, opened
from ragschema.database.drivers import engine_on
from ragschema.database.options import Options
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.errors import ImportRefused, LockNotObtained
from ragschema.importing import positions
from ragschema.importing.documents import ImportedDocument, Models, Naming, Tally, read_documents
from ragschema.importing.preset_queries import Question
from ragschema.importing.reports import Dimensions, Import, Refusal
from ragschema.importing.sources import Source, answered, open_source
from ragschema.importing.targets import (
    choose_models,
    fill,
    read_own,
    read_standing,
)
from ragschema.jobs.queue import enqueue_many
from ragschema.jobs.records import NewJob
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.readiness import check_ready
from ragschema.publishing import BulkLoad, ContentError, deferred_index, publish_many, retire_document
from ragschema.publishing.documents import BulkDocument, check_document
from ragschema.publishing.live_models import LiveModels, read_live_models
from ragschema.revisions.manifest import read_manifest
from ragschema.state.status import behind, require_current
from ragschema.words import counted

log = logging.getLogger(__name__)

BATCH = 5_000
"""Chunks of a transaction."""

_LOOKED_UP = 500  # documents whose standing is asked at once
_SHOWN = 100  # refusals


@dataclass(frozen=True)
class Wishes:
    """How to import.

    Attributes:
        models: Keys of the models that embeddings go to, where their dimensions do not tell.
        embedder: What the versions say of their embedder, where no model is registered.
        text_config: The text search configuration of new documents.
        skip_refused: Whether to leave out what cannot be stored, and say so; otherwise the import ends there.
        skip_deleted: Whether to leave out documents that the source has deleted; otherwise they are refused.
        retire_gone: Whether to retire documents of an earlier run that the source has no more.
        defer_index: Whether to build the indexes afterwards: search is slow meanwhile.
        batch_size: Chunks of a transaction.
    """

    models: Sequence[str] = ()
    embedder: str | None = None
    text_config: str = "simple"
    skip_refused: bool = False
    skip_deleted: bool = False
    retire_gone: bool = False
    defer_index: bool = False
    batch_size: int = BATCH


@dataclass
class _Run:
    """An import that is under way."""

    source: Source
    wishes: Wishes
    naming: Naming
    connection: sa.Connection
    own: Iterator[str]
    live: LiveModels
    tally: Tally = field(default_factory=Tally)
    left_alone: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    gone: int = 0
    gone_now: list[str] = field(default_factory=list)
    next_own: str | None = None

    def begin(self) -> None:
        self.next_own = next(self.own, None)

    def pass_own(self, article_id: str | None) -> None:
        """Note the documents of an earlier run that stand before one, and that the source did not have."""
        while self.next_own is not None and (article_id is None or self.next_own < article_id):
            self.gone += 1
            self.gone_now.append(self.next_own)
            self.next_own = next(self.own, None)
        if self.next_own is not None and self.next_own == article_id:
            self.next_own = next(self.own, None)

    def refuse(self, article_id: str, error: Exception) -> None:
        self.refused += 1
        if len(self.refusals) < _SHOWN:
            message = getattr(error, "message", str(error))
            self.refusals.append(Refusal(article_id, message))

    def documents(self, models: Models, after: str | None) -> Generator[ImportedDocument, None, None]:
        """Yield the documents to publish: without those that somebody else has published or retired since."""
        reading = read_documents(self.source, after, models, self.naming, self.tally)
        while some := list(islice(reading, _LOOKED_UP)):
            with self.connection.begin():
                standing = read_standing(self.connection, [each.article_id for each in some])
            for document in some:
                self.pass_own(document.article_id)
                found = standing.get(document.article_id)
                if found is not None and (found.chunker != self.naming.chunker or not found.source_hash):
                    self.left_alone += 1
                    continue
                if found is None:
                    self.added += 1
                elif found.source_hash == document.source_hash:
                    self.unchanged += 1
                else:
                    self.changed += 1
                yield document
        self.pass_own(None)


def import_documents(
    options: Options,
    source: Options,
    question: Question,
    wishes: Wishes | None = None,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Import:
    """Import documents of another library's tables, with a commit for each batch.

    The source is read in one read-only transaction, as a stream: of a million rows as many are in memory as of a
    batch. Interrupted, the next run of the same import goes on behind the last batch that was committed; after the
    end a run imports what has changed. Documents that somebody else has published since are left alone.

    Args:
        options: The database to import into.
        source: The database to read, which may be the same.
        question: Which rows, and how they are read.
        wishes: How to import.
        dry_run: Whether to read and check everything, and to change nothing.
        progress: Called after each batch with the number of documents that were read.

    Raises:
        ImportRefused: The source cannot be read, a model is missing, or a document cannot be stored.
        LockNotObtained: The same import is running.
        UnmanagedDatabase: The database has not our tables.
        PendingRevisions: It is not at head.
    """
    wishes = wishes or Wishes()
    with ExitStack() as stack:
        held = stack.enter_context(held_reachable(options))
        at = stack.enter_context(opened(held))
        aside = stack.enter_context(opened(replace(held, is_announced=True)))
        current = require_current(at.connection, at.schemas.target)
        if read_manifest().pending(current):
            raise behind(current, read_manifest().head, "Run `rag migrate`.")
        check_ready(at.connection, at.schemas.target)
        reading = stack.enter_context(open_source(source, question))
        if not dry_run:
            _lock(aside, reading.name)
        connection = stack.enter_context(_connected(at))
        return _import(connection, aside, reading, question, wishes, dry_run=dry_run, progress=progress)


def _import(
    connection: sa.Connection,
    aside: Opened,
    source: Source,
    question: Question,
    wishes: Wishes,
    *,
    dry_run: bool,
    progress: Callable[[int], object] | None,
) -> Import:
    with connection.begin():
        live, _ = read_live_models(connection)
    embedder = wishes.embedder or question.preset.embedder
    counts = source.count_dimensions()
    models, obstacles = choose_models(live, wishes.models, counts, embedder)
    if not live.is_registered and embedder is None:
        obstacles.append(
            "No embedding model is registered, and nothing says what embedded the source."
            " Pass --embedder NAME, what the service will call it, so that it embeds nothing again."
        )
    if live.is_registered and live.active is None and wishes.embedder is None:
        obstacles.append(
            "No embedding model is active. Run `rag models activate KEY`, or pass --embedder NAME."
        )
    if obstacles and not dry_run:
        fact, _, remedy = obstacles[0].partition(". ")
        raise ImportRefused(f"{fact}.", remedy, "\n".join(obstacles[1:]))
    label = wishes.embedder if live.is_registered else embedder or "unknown"
    naming = Naming(source.name, label, wishes.text_config)
    position = None
    if not dry_run:
        with connection.begin():
            position = positions.begin(connection, source.name, source.digest)
    after = position.after if position else None
    if after is not None:
        log.info("Going on after %s.", after)
    own = read_own(aside.connection, aside.schemas.target, source.name, after)
    run = _Run(source, wishes, naming, connection, own, live)
    run.begin()
    if position is None:
        _look(run, models)
        jobs = len(_read_jobs(source))
        retired = 0
    else:
        retired = _publish(run, models, position, progress, aside)
        jobs = _enqueue(connection, source)
        with connection.begin():
            positions.end(connection, position, run.tally.documents)
    if dry_run:
        obstacles += _find_obstacles(run)
    return _report(run, question, models, counts, obstacles, after, retired, jobs, dry_run=dry_run)


def _find_obstacles(run: _Run) -> Iterator[str]:
    """Yield what would end an import that does not leave it out."""
    if run.tally.deleted and not run.wishes.skip_deleted:
        yield _deleted(run.tally.deleted)
    if run.tally.empty_chunks and not run.wishes.skip_refused:
        yield _empty(run.tally.empty_chunks)
    if run.refused and not run.wishes.skip_refused:
        yield (
            f"{counted(run.refused, 'document')} of the source cannot be stored."
            " Pass --skip-refused to leave such documents out."
        )


def _empty(number: int) -> str:
    return (
        f"The source has {counted(number, 'chunk')} without text."
        " Pass --skip-refused to leave such chunks out."
    )


def _deleted(number: int) -> str:
    return (
        f"The source has deleted {counted(number, 'document')}, which have no place here."
        " Pass --skip-deleted to leave them out."
    )


def _look(run: _Run, models: Models) -> None:
    """Read and check everything, and change nothing."""
    for document in run.documents(models, None):
        try:
            check_document(document, run.live)
        except (ContentError, EmbeddingError) as exc:
            run.refuse(document.article_id, exc)


def _publish(
    run: _Run,
    models: Models,
    position: positions.Position,
    progress: Callable[[int], object] | None,
    aside: Opened,
) -> int:
    """Publish everything; return how many documents were retired."""
    retired = 0
    wishes = run.wishes

    def checkpoint(connection: sa.Connection, batch: Sequence[BulkDocument]) -> None:
        nonlocal retired
        if run.tally.deleted and not wishes.skip_deleted:
            raise _refusal(_deleted(run.tally.deleted))
        if run.tally.empty_chunks and not wishes.skip_refused:
            raise _refusal(_empty(run.tally.empty_chunks))
        documents = [each for each in batch if isinstance(each, ImportedDocument)]
        fill(connection, run.naming.chunker, documents)
        retired += _retire(run, connection)
        positions.move(connection, position, batch[-1].article_id)

    def done(load: BulkLoad) -> None:
        if progress is not None:
            progress(run.tally.documents)

    deferred: Any = nullcontext()
    if wishes.defer_index:
        engine = engine_on_url(aside)
        deferred = deferred_index(engine, search_is_slow_meanwhile=True)
    documents = run.documents(models, position.after)
    with deferred:
        try:
            load = publish_many(
                run.connection,
                documents,
                batch_size=wishes.batch_size,
                on_error="skip" if wishes.skip_refused else "raise",
                progress=done,
                checkpoint=checkpoint,
            )
        except (ContentError, EmbeddingError) as exc:
            raise ImportRefused(
                exc.message,
                "Mend it in the source, or pass --skip-refused to leave such documents out; what was imported stays.",
            ) from exc
        finally:  # an index that is built concurrently would wait for the source's transaction
            documents.close()
            run.source.connection.rollback()
    for failure in load.failures:
        run.refuse(failure.article_id, failure.error)
    run.added, run.changed = load.added, load.changed
    run.unchanged = load.skipped + load.embedded
    if run.tally.deleted and not wishes.skip_deleted:
        raise _refusal(_deleted(run.tally.deleted))
    with run.connection.begin():
        if run.tally.documents or position.after is not None:
            retired += _retire(run, run.connection)
    return retired


def engine_on_url(at: Opened) -> sa.Engine:
    """Return an engine of several connections to an open database."""
    engine = sa.create_engine(at.database.url())
    path = at.schemas.search_path

    @sa.event.listens_for(engine, "connect")
    def _set_search_path(driver: Any, record: object) -> None:
        driver.execute("SELECT set_config('search_path', %s, false)", (path,))
        if at.options.role is not None:
            driver.execute("SELECT set_config('role', %s, false)", (at.options.role,))
        driver.commit()

    return engine


def _refusal(obstacle: str) -> ImportRefused:
    fact, _, remedy = obstacle.partition(". ")
    return ImportRefused(f"{fact}.", remedy)


def _retire(run: _Run, connection: sa.Connection) -> int:
    """Retire what the source has no more, if that is wished; return how many."""
    gone, run.gone_now = run.gone_now, []
    if not run.wishes.retire_gone:
        return 0
    for article_id in gone:
        retire_document(connection, article_id)
    return len(gone)


def _read_jobs(source: Source) -> list[NewJob]:
    if source.jobs is None:
        return []
    with answered(source.name):
        rows = source.connection.execute(source.jobs).fetchall()
    return [
        NewJob(job_type=job_type, payload=payload, dedupe_key=f"{source.name} {key}")
        for key, job_type, payload in rows
    ]


def _enqueue(connection: sa.Connection, source: Source) -> int:
    """Enqueue the jobs of a source that no run has enqueued before; return how many."""
    jobs = _read_jobs(source)
    if not jobs:
        return 0
    with connection.begin():
        known = {
            *connection.scalars(
                sa.text("SELECT dedupe_key FROM rag_jobs WHERE dedupe_key = ANY(CAST(:keys AS text[]))"),
                {"keys": [job.dedupe_key for job in jobs]},
            )
        }
        new = [job for job in jobs if job.dedupe_key not in known]
        enqueue_many(connection, new)
    return len(new)


def _lock(at: Opened, name: str) -> None:
    """Let no second import of the same name run; held until the connection closes.

    Raises:
        LockNotObtained: One does.
    """
    key = deployer_lock_key(f"{at.schemas.target} {name}")
    if at.connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() != (True,):
        raise LockNotObtained(f"The {name} is running already.", "Wait for it, or end it, then run it again.")


@contextmanager
def _connected(at: Opened) -> Iterator[sa.Connection]:
    """Yield SQLAlchemy's connection on an open one, in transactions instead of autocommit mode."""
    at.connection.autocommit = False
    try:
        with engine_on(at.connection).connect() as connection:
            yield connection
    finally:
        if not at.connection.closed:
            at.connection.rollback()
            at.connection.autocommit = True


def _report(
    run: _Run,
    question: Question,
    models: Models,
    counts: dict[int, int],
    obstacles: list[str],
    after: str | None,
    retired: int,
    jobs: int,
    *,
    dry_run: bool,
) -> Import:
    tally = run.tally
    notes = [] if question.collection else list(question.preset.notes)
    if any(not model.is_active for model in models.values()):
        keys = ", ".join(sorted({model.key for model in models.values() if not model.is_active}))
        notes.append(f"search does not read {keys} before `rag models activate`")
    return Import(
        name=run.naming.chunker,
        is_dry_run=dry_run,
        resumed_after=after,
        documents=tally.documents,
        chunks=tally.chunks,
        without_embedding=tally.without_embedding,
        zero_embeddings=tally.zero_embeddings,
        dimensions=tuple(
            Dimensions(each, number, models[each].key if each in models else None)
            for each, number in sorted((tally.dimensions or counts).items())
        ),
        added=run.added,
        changed=run.changed,
        unchanged=run.unchanged,
        left_alone=run.left_alone,
        deleted=tally.deleted,
        empty_chunks=tally.empty_chunks,
        refused=run.refused,
        refusals=tuple(run.refusals),
        gone=run.gone,
        retired=retired,
        jobs=jobs,
        no_home=run.source.no_home,
        notes=tuple(notes),
        obstacles=tuple(obstacles),
    )
