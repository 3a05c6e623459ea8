"""Imports: a source read as a stream, and published batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import sqlalchemy as sa

from ragschema.database.connections import Opened, held_reachable, opened
from ragschema.database.options import Options
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.errors import ImportRefused
from ragschema.importing import positions
from ragschema.importing.documents import ImportedDocument, Models, Naming
from ragschema.importing.preset_queries import Question
from ragschema.importing.replacing import count_changed, replace_changed
from ragschema.importing.reports import Dimensions, Import
from ragschema.importing.runs import LOOKED_UP, Run, Wishes, empty_obstacle, find_obstacles, refusal_of
from ragschema.importing.sessions import connected, engine_on_url, lock
from ragschema.importing.source_jobs import enqueue, read_jobs
from ragschema.importing.sources import Source, open_source
from ragschema.importing.targets import (
    choose_models,
    delete,
    fill,
    join,
    read_own,
)
from ragschema.migrations.readiness import check_ready
from ragschema.publishing import BulkLoad, ContentError, deferred_index, publish_many, retire_document
from ragschema.publishing.documents import BulkDocument, check_document
from ragschema.publishing.live_models import read_live_models
from ragschema.revisions.manifest import read_manifest
from ragschema.state.status import behind, require_current

log = logging.getLogger(__name__)


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
            lock(aside, reading.name)
        connection = stack.enter_context(connected(at))
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
        live = read_live_models(connection)
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
    run = Run(source, wishes, naming, connection, own, live)
    run.begin()
    if position is None:
        _look(run, models)
        jobs = len(read_jobs(source))
        retired = 0
    else:
        retired = _publish(run, models, position, progress, aside)
        jobs = enqueue(connection, source)
        with connection.begin():
            positions.end(connection, position, run.tally.documents)
    if dry_run:
        obstacles += find_obstacles(run)
    return _report(run, question, models, counts, obstacles, after, retired, jobs, dry_run=dry_run)


def _look(run: Run, models: Models) -> None:
    """Read and check everything, and change nothing."""
    reading = run.documents(models, None)
    while some := list(islice(reading, LOOKED_UP)):
        for document in some:
            try:
                check_document(document, run.live)
            except (ContentError, EmbeddingError) as exc:
                run.refuse(document.article_id, exc)
                run.count(document.counted_as, -1)
        with run.connection.begin():
            run.reembedded += count_changed(run.connection, run.naming.chunker, some)


def _publish(
    run: Run,
    models: Models,
    position: positions.Position,
    progress: Callable[[int], object] | None,
    aside: Opened,
) -> int:
    """Publish everything; return how many documents were retired."""
    retired = deleted_before = 0
    wishes = run.wishes

    def checkpoint(connection: sa.Connection, batch: Sequence[BulkDocument]) -> None:
        nonlocal retired, deleted_before
        if run.tally.empty_chunks and not wishes.skip_refused:
            raise refusal_of(empty_obstacle(run.tally.empty_chunks))
        documents = [each for each in batch if isinstance(each, ImportedDocument)]
        fill(connection, run.naming.chunker, documents)
        join(connection, run.naming.chunker, documents)
        deleted_before += delete(connection, documents)
        retired += _retire(run, connection)
        run.reembedded += replace_changed(connection, run.naming.chunker, documents)
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
    run.unchanged = load.skipped + load.embedded + deleted_before
    run.left_alone += load.deleted - deleted_before
    with run.connection.begin():
        if run.tally.documents or position.after is not None:
            retired += _retire(run, run.connection)
    return retired


def _retire(run: Run, connection: sa.Connection) -> int:
    """Retire what the source has no more, if that is wished; return how many."""
    gone, run.gone_now = run.gone_now, []
    if not run.wishes.retire_gone:
        return 0
    for article_id in gone:
        retire_document(connection, article_id)
    return len(gone)


def _report(
    run: Run,
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
        reembedded=run.reembedded,
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
