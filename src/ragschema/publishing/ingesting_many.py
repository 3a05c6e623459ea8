"""Ingesting many documents: a batch is planned and embedded together, and each document published by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy.orm import Session, sessionmaker

from ragschema.embeddings.column_type import EmbeddingError
from ragschema.errors import RagSchemaError
from ragschema.publishing.documents import (
    BulkDocument,
    Failure,
    batches,
    check_vectors,
    describe,
)
from ragschema.publishing.errors import DocumentDeleted, PublishingError, StalePlan
from ragschema.publishing.ingesting import Embed, Embedded, Vectors, choose, ingest, pair, publish_embedded
from ragschema.publishing.memberships import join_collections, settle_text_configs
from ragschema.publishing.plans import plan_versions
from ragschema.publishing.text_configs import check_text_configs
from ragschema.publishing.texts import CheckedContents, Refuse, given_contents
from ragschema.publishing.transactions import check_atomic, check_factory
from ragschema.publishing.version_plan import VersionPlan
from ragschema.publishing.writing import PublishedVersion
from ragschema.values import check_choice, refuse_one

INGEST_BATCH = 256
"""Chunks that `ingest_many` plans and embeds together."""


@dataclass(frozen=True)
class Ingestion:
    """What `ingest_many` has done so far.

    Attributes:
        published: Documents that got a version.
        up_to_date: Documents that needed none: their current version says the same.
        embedded: Texts that were embedded, by each model.
        failures: Documents that were left out, each with the reason.
        deleted: Documents that were left out because they are deleted.
        undeleted: Documents that were deleted, and that search finds again; such a one is among the published or those
            up to date too.
    """

    published: int = 0
    up_to_date: int = 0
    embedded: int = 0
    failures: tuple[Failure, ...] = ()
    deleted: int = 0
    undeleted: int = 0


def ingest_many(
    sessions: sessionmaker[Session],
    documents: Iterable[BulkDocument],
    embed: Embed | None,
    *,
    model_embed: Mapping[str, Embed] | None = None,
    refuse: Refuse | None = None,
    batch_size: int = INGEST_BATCH,
    on_error: Literal["raise", "skip"] = "raise",
    undelete: bool = False,
    progress: Callable[[Ingestion], object] | None = None,
) -> Ingestion:
    """Publish many documents whose texts are embedded on the way, each in a transaction of its own.

    May be interrupted and run again: a document that is up to date is neither embedded nor written. The texts of
    a batch are embedded together. For documents whose embeddings are there already `publish_many` is faster.

    Args:
        sessions: A factory of sessions: `session_factory`.
        documents: Read as they are needed; their ``embeddings`` are None.
        embed: The active model: called once a batch, with the texts that have no embedding yet, each once.
        model_embed: Models by their key, as of `ingest`.
        refuse: As in `plan_version`.
        batch_size: Chunks that are planned and embedded together; a document is never split.
        on_error: ``skip``: a document that cannot be stored or embedded is left out, and the result says why. An
            error of the database ends it all the same.
        undelete: Whether search is to find those again that are deleted; otherwise they are neither embedded nor
            written, and counted.
        progress: Called after each batch with what has been done so far.

    Returns:
        What was done in all.

    Raises:
        ContentError: A text cannot be stored, with ``on_error="raise"``; the documents before it stay.
        EmbeddingError: ``embed`` did not return an embedding for each text, or one that cannot be stored.
        PublishingError: The sessions are in autocommit mode, or are no factory; nothing was embedded.
        UnknownCollection: A collection of a document is not there; the batches before it stay.
    """
    check_factory(sessions)
    refuse_one("documents", documents, PublishingError, is_ordered=True)
    check_choice("on_error", on_error, ("raise", "skip"), PublishingError)
    done = Ingestion()
    for batch in batches(documents, batch_size):
        done = _ingest_batch(
            sessions,
            batch,
            embed,
            model_embed,
            refuse,
            done,
            undelete=undelete,
            is_skipping=on_error == "skip",
        )
        if progress is not None:
            progress(done)
    return done


def _ingest_batch(
    sessions: sessionmaker[Session],
    batch: Sequence[BulkDocument],
    embed: Embed | None,
    model_embed: Mapping[str, Embed] | None,
    refuse: Refuse | None,
    done: Ingestion,
    *,
    undelete: bool,
    is_skipping: bool,
) -> Ingestion:
    failures = list(done.failures)

    def fail(article_id: str, error: RagSchemaError) -> None:
        if not is_skipping:
            raise error
        failures.append(Failure(article_id, error))

    with sessions() as session:
        check_atomic(session, "ingest_many")  # what publish would refuse, before money is spent
        good: list[BulkDocument] = []
        asked: list[tuple[VersionPlan, CheckedContents]] = []
        for document in batch:
            try:
                read = replace(document, contents=given_contents(document.article_id, document.contents))
                asked.append(_check(session, read, refuse, undelete=undelete))
            except PublishingError as exc:
                fail(document.article_id, exc)
            else:
                good.append(read)
        settled = settle_text_configs(session, [plan for plan, _ in asked])
        asked = [(plan, contents) for plan, (_, contents) in zip(settled, asked, strict=True)]
        plans = plan_versions(session, asked) if asked else []
    embedded = _embed([plan for plan in plans if not plan.is_withheld], embed, model_embed)
    published = up_to_date = deleted = undeleted = 0
    _join_up_to_date(sessions, [plan for plan in plans if not plan.is_withheld])
    for document, plan in zip(good, plans, strict=True):
        if plan.is_withheld:
            deleted += 1
            continue
        if plan.is_up_to_date and plan.deleted_at is None:
            up_to_date += 1
            continue
        try:
            vectors = _own(plan, embedded)
            for model in plan.live.all:
                check_vectors(plan.article_id, plan.contents, vectors[model.id], model)
            version = _publish(sessions, document, plan, vectors, embed, model_embed)
        except DocumentDeleted:
            deleted += 1
        except (EmbeddingError, PublishingError) as exc:
            fail(document.article_id, exc)
        else:
            published += version.is_new
            up_to_date += not version.is_new
            undeleted += version.undeleted
    return replace(
        done,
        published=done.published + published,
        up_to_date=done.up_to_date + up_to_date,
        embedded=done.embedded + sum(map(len, embedded.values())),
        failures=tuple(failures),
        deleted=done.deleted + deleted,
        undeleted=done.undeleted + undeleted,
    )


def _check(
    session: Session, document: BulkDocument, refuse: Refuse | None, *, undelete: bool
) -> tuple[VersionPlan, CheckedContents]:
    described = describe(document, refuse, undelete=undelete)
    if document.text_config not in (None, "simple"):
        check_text_configs(session, [document.text_config])
    return described


def _join_up_to_date(sessions: sessionmaker[Session], plans: Sequence[VersionPlan]) -> None:
    """Let the documents that need no version be in their collections; the others join as they are published."""
    pairs = [(id_, plan.article_id) for plan in plans if plan.is_up_to_date for id_ in plan.collection_ids]
    if pairs:
        with sessions.begin() as session:
            join_collections(session, pairs)


def _embed(
    plans: Sequence[VersionPlan], embed: Embed | None, model_embed: Mapping[str, Embed] | None
) -> Vectors:
    """Embed the texts of all plans, each once by each model that there is a function for."""
    vectors: Vectors = defaultdict(dict)
    if plans:
        for model, name, function in choose(plans[0].live, embed, model_embed):
            needed = (needs for plan in plans for needs in plan.needs if needs.model == model)
            if texts := list(dict.fromkeys(text for needs in needed for text in needs.texts_to_embed)):
                vectors[model.id] |= pair(
                    f"{plans[0].article_id} and others", texts, function([*texts]), name
                )
    return vectors


def _own(plan: VersionPlan, embedded: Vectors) -> Vectors:
    """Return the embeddings of a plan's texts, of those that were embedded."""
    vectors: Vectors = defaultdict(dict)
    for needs in plan.needs:
        if needs.model.id in embedded:
            known = embedded[needs.model.id]
            vectors[needs.model.id] = {text: known[text] for text in needs.texts_to_embed}
    return vectors


def _publish(
    sessions: sessionmaker[Session],
    document: BulkDocument,
    plan: VersionPlan,
    vectors: Vectors,
    embed: Embed | None,
    model_embed: Mapping[str, Embed] | None,
) -> PublishedVersion:
    """Publish a plan; where it is stale, ingest the document by itself."""
    try:
        with sessions.begin() as session:
            return publish_embedded(session, plan, vectors)
    except StalePlan:
        known = {name: vectors[model.id] for model, name, _ in choose(plan.live, embed, model_embed)}

        def remember(name: str, function: Embed) -> Embed:
            embedded = known.get(name, {})

            def embed_missing(texts: list[str]) -> Embedded:
                missing = [text for text in texts if text not in embedded]
                if missing:
                    embedded.update(pair(document.article_id, missing, function([*missing]), name))
                return [embedded[text] for text in texts]

            return embed_missing

        return ingest(
            sessions,
            document.article_id,
            document.contents,
            remember("embed", embed) if embed else None,
            model_embed={
                key: remember(f"model_embed[{key!r}]", function)
                for key, function in (model_embed or {}).items()
            },
            source_hash=document.source_hash,
            chunker_version=document.chunker_version,
            embedder_version=document.embedder_version,
            title=document.title,
            url=document.url,
            metadata=document.metadata,
            source=document.source,
            text_config=document.text_config,
            undelete=plan.undelete,
            collection_ids=document.collection_ids,
        )
