"""The bulk load: COPY in binary, many documents a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias
from uuid import UUID

import psycopg
import sqlalchemy as sa

from ragschema.database.arrays import Texts, Uuids
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.publishing.copying import Driver, copy_documents
from ragschema.publishing.documents import (
    BulkDocument,
    CheckedDocument,
    Failure,
    batches,
    check_document,
    embeddings_by_model,
    embeddings_by_text,
    has_nothing_new,
    memberships,
)
from ragschema.publishing.errors import ContentError, PublishingError, StalePlan
from ragschema.publishing.facts import settle_facts
from ragschema.publishing.live_models import LiveModels, read_live_models
from ragschema.publishing.memberships import join_collections, settle_text_configs
from ragschema.publishing.plans import plan_versions
from ragschema.publishing.text_configs import find_refused
from ragschema.publishing.transactions import check_connection
from ragschema.publishing.version_plan import VersionPlan
from ragschema.publishing.writing import PublishedVersion, publish_unsettled
from ragschema.schema.ids import uuid7s
from ragschema.values import check_choice, refuse_one

BULK_BATCH = 5_000
Fail: TypeAlias = Callable[[Failure], object] | None


@dataclass(frozen=True)
class BulkLoad:
    """What `publish_many` has done so far.

    Attributes:
        added: Documents that were new.
        changed: Documents that got another version.
        skipped: Documents that were up to date: their current version says the same in every point that
            `plan_version` looks at, and waits for no embedding that came with them.
        chunks: Chunks in the versions that were written.
        embedded: Documents that got no other version, only embeddings that their chunks waited for.
        failures: Documents that were left out, each with the reason.
        deleted: Documents that were left out because they are deleted.
        undeleted: Documents that were deleted, and that search finds again; such a one may be among the changed or
            embedded too.
    """

    added: int = 0
    changed: int = 0
    skipped: int = 0
    chunks: int = 0
    embedded: int = 0
    failures: tuple[Failure, ...] = ()
    deleted: int = 0
    undeleted: int = 0


def publish_many(
    connection: sa.Connection,
    documents: Iterable[BulkDocument],
    *,
    batch_size: int = BULK_BATCH,
    on_error: Literal["raise", "skip"] = "raise",
    undelete: bool = False,
    progress: Callable[[BulkLoad], object] | None = None,
    checkpoint: Callable[[sa.Connection, Sequence[BulkDocument]], object] | None = None,
) -> BulkLoad:
    """Publish many documents, with a commit for each batch: new ones by COPY, the others as `publish` does.

    May be interrupted and run again: a document that is up to date, as `publish` would find it, is skipped. Right
    without the database's triggers. With the HNSW index in place a chunk costs about 2 ms; for more than a few
    thousand see `deferred_index`. As the tables grow they are analyzed, which PostgreSQL does a minute late.

    Args:
        connection: A connection over psycopg 3 that is in no transaction: it is committed.
        documents: Read as they are needed. One that comes twice gets two versions.
        batch_size: Chunks after which a transaction is committed; a document is never split.
        on_error: ``skip``: a document that cannot be stored is left out, and the result says why; the rest of its
            batch is written. An error of the database ends the load all the same.
        undelete: Whether search is to find those again that are deleted; otherwise they are left out, and counted.
        progress: Called after each commit with what has been done so far.
        checkpoint: Called in each batch's transaction, once it is written, with the connection and the batch, left out
            documents among it: what it writes is committed with them, or not at all.

    Returns:
        What was done in all.

    Raises:
        ContentError: A text cannot be stored; the batches before it stay.
        EmbeddingError: The embeddings of a document are not one for each of its chunks, or cannot be stored; or are
            of a model that is not live.
        PublishingError: The connection is in a transaction, is of another driver, or is a session.
        UnknownCollection: A collection of a document is not there; the batches before it stay.
        StalePlan: Embedding models were added, activated or dropped while a batch was written: run it again.
    """
    refuse_one("documents", documents, PublishingError, is_ordered=True)
    check_choice("on_error", on_error, ("raise", "skip"), PublishingError)
    driver = _psycopg_connection(connection)
    done = BulkLoad()
    analyze_at = batch_size
    failures: list[Failure] = []
    fail = failures.append if on_error == "skip" else None
    for batch in batches(documents, batch_size):
        with connection.begin():
            live = read_live_models(connection)
            checked = [item for item in (_check(document, live, fail) for document in batch) if item]
            settled = settle_text_configs(connection, [item.plan for item in checked])
            checked = [
                item if plan is item.plan else replace(item, plan=plan)
                for item, plan in zip(checked, settled, strict=True)
            ]
            done = _publish_batch(connection, driver, checked, live, done, fail, undelete=undelete)
            if checkpoint is not None:
                checkpoint(connection, batch)
        done = replace(done, failures=tuple(failures))
        if done.chunks >= analyze_at:
            with connection.begin():
                for statement in _ANALYZE:
                    connection.execute(statement)
            analyze_at = 4 * done.chunks
        if progress is not None:
            progress(done)
    return replace(done, failures=tuple(failures))


def _psycopg_connection(connection: sa.Connection) -> Driver:
    check_connection(connection, "publish_many")
    driver = connection.connection.driver_connection
    connection.rollback()
    if not isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        raise PublishingError(
            f"COPY needs psycopg's own connection, and this is {type(driver).__module__}.{type(driver).__name__}.",
            "Create the engine with a postgresql+psycopg:// URL and create_engine, also in async code.",
        )
    return driver


def _check(document: BulkDocument, live: LiveModels, fail: Fail) -> CheckedDocument | None:
    """Return a document that can be stored; None where it cannot and was left out."""
    try:
        return check_document(document, live)
    except (ContentError, EmbeddingError) as exc:
        if fail is None:
            raise
        fail(Failure(document.article_id, exc))
        return None


def _publish_batch(
    connection: sa.Connection,
    driver: Driver,
    batch: Sequence[CheckedDocument],
    live: LiveModels,
    done: BulkLoad,
    fail: Fail,
    *,
    undelete: bool,
) -> BulkLoad:
    known = {*connection.scalars(_KNOWN, {"article_ids": Texts(item.article_id for item in batch)})}
    there = [item for item in batch if item.article_id in known]
    plans = {plan.article_id: plan for plan in _plan(connection, there, live, undelete=undelete)}
    # what was purged meanwhile is absent too
    found = {plan.article_id for plan in plans.values() if plan.document_id is not None}
    absent = [item for item in batch if item.article_id not in found]
    refused = find_refused(connection, {item.article_id: item.plan.text_config for item in absent})
    for article_id, error in refused.items():
        if fail is None:
            raise error
        fail(Failure(article_id, error))
    batch, absent = ([item for item in part if item.article_id not in refused] for part in (batch, absent))
    document_ids = _add_documents(connection, absent)
    added = [item for item in absent if item.article_id in document_ids]
    if added:
        copy_documents(connection, driver, added, document_ids)
    changed = [
        item
        for item in batch
        if item.article_id not in document_ids and not _stays(item, plans.get(item.article_id))
    ]
    published = _publish_changed(connection, changed, live, undelete=undelete)
    join_collections(connection, memberships(batch, plans.values(), changed, published))
    versions = [version for version in published if version is not None]
    written = added + [
        item for item, version in zip(changed, published, strict=True) if version and version.is_new
    ]
    deleted = sum(plan.is_withheld for plan in plans.values()) + published.count(None)
    embedded = sum(not version.is_new and version.embedded > 0 for version in versions)
    shown = sum(not version.is_new and not version.embedded and version.undeleted for version in versions)
    return BulkLoad(
        added=done.added + len(added),
        changed=done.changed + len(written) - len(added),
        skipped=done.skipped + len(batch) - len(written) - embedded - shown - deleted,
        chunks=done.chunks + sum(len(item.texts) for item in written),
        embedded=done.embedded + embedded,
        failures=done.failures,
        deleted=done.deleted + deleted,
        undeleted=done.undeleted + sum(version.undeleted for version in versions),
    )


def _stays(item: CheckedDocument, plan: VersionPlan | None) -> bool:
    """Whether a document is left as it is; one that somebody else has added since is not known, nor planned."""
    return plan is not None and (plan.is_withheld or has_nothing_new(item, plan))


def _plan(
    connection: sa.Connection, items: Sequence[CheckedDocument], live: LiveModels, *, undelete: bool
) -> list[VersionPlan]:
    """Plan the versions of documents that are there."""
    # without their collections: all that the batch has are joined at once
    asked = [(replace(item.plan, undelete=undelete, collection_ids=()), item.contents) for item in items]
    plans = plan_versions(connection, asked) if asked else []
    if live != (plans[0].live if plans else read_live_models(connection)):
        raise StalePlan(
            "The embedding models have changed while a batch was being loaded.",
            "Run it again: what is there is skipped.",
        )
    return plans


def _publish_changed(
    connection: sa.Connection, items: Sequence[CheckedDocument], live: LiveModels, *, undelete: bool
) -> list[PublishedVersion | None]:
    """Publish the next versions of documents that are there, as they are once they are locked; None: it is deleted."""
    if not items:
        return []
    connection.execute(_LOCK, {"article_ids": Texts(item.article_id for item in items)})
    plans = _plan(connection, items, live, undelete=undelete)
    published: list[PublishedVersion | None] = []
    changes = []
    for item, plan in zip(items, plans, strict=True):
        version = None
        if not plan.is_withheld:
            version, changed = publish_unsettled(
                connection,
                plan,
                embeddings_by_text(item, live.active),
                model_embeddings=embeddings_by_model(item, live),
            )
            changes.append(changed)
        published.append(version)
    if any(changes):
        settle_facts(connection, changes)
    return published


def _add_documents(connection: sa.Connection, items: Sequence[CheckedDocument]) -> dict[str, UUID]:
    """Insert documents; return the ids of those that nobody else has inserted meanwhile."""
    if not items:
        return {}
    items = sorted(items, key=lambda item: item.article_id)  # two loaders wait, not deadlock
    rows = connection.execute(
        _ADD_DOCUMENTS,
        {
            "ids": Uuids(uuid7s(len(items))),
            "article_ids": Texts(item.article_id for item in items),
            "text_configs": Texts(item.plan.text_config for item in items),
            "created_ats": [item.created_at for item in items],
        },
    )
    return {row.article_id: row.id for row in rows}


# Of a table that was empty a moment ago the planner expects the worst, and reads all of it for each document.
_ANALYZE = tuple(
    sa.text(f"ANALYZE {tables}")
    for tables in (
        "rag_documents, rag_document_versions, rag_chunk_events, rag_chunks (version_id, ordinal, is_current)",
        "(SKIP_LOCKED) rag_chunk_embeddings (chunk_id, model_id, is_current)",  # an index may be being built
    )
)
_LOCK = sa.text(
    'SELECT FROM rag_documents WHERE article_id = ANY(:article_ids) ORDER BY article_id COLLATE "C" FOR UPDATE'
)
_KNOWN = sa.text("SELECT article_id FROM rag_documents WHERE article_id = ANY(CAST(:article_ids AS text[]))")
_ADD_DOCUMENTS = sa.text("""
INSERT INTO rag_documents (id, article_id, text_config, created_at)
SELECT id, article_id, coalesce(text_config, 'simple'), coalesce(created_at, now())
FROM unnest(
    CAST(:ids AS uuid[]), CAST(:article_ids AS text[]), CAST(:text_configs AS text[]),
    CAST(:created_ats AS timestamptz[])
) AS t (id, article_id, text_config, created_at)
ON CONFLICT (article_id) DO NOTHING
RETURNING article_id, id
""")
