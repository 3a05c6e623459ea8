"""Corpora whose averages mislead the planner, and even ones of the same size, made on the server in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import sqlalchemy as sa
from psycopg.rows import TupleRow
from sqlalchemy.orm import Session

from ragschema import (
    BulkDocument,
    activate_version,
    chunk_history,
    delete_documents,
    hybrid_search,
    jobs,
    nearest_chunks,
    pending_embeddings,
    plan_version,
    prune_versions,
    publish,
    publish_many,
    purge_document,
    purge_documents,
    retire_document,
    skip_embeddings,
    store_embeddings,
    undelete_document,
    version_chunks,
    version_diff,
)
from ragschema.publishing import VersionPlan
from ragschema.publishing.plans import plan_versions
from ragschema.publishing.texts import CheckedContents
from ragschema.schema.row_rules import broken_documents


@dataclass(frozen=True)
class Corpus:
    """A target document, and the crowd around it.

    Attributes:
        versions: Of the target, ``target``; each says the same, but for its first chunk.
        chunks: In each version of the target.
        crowd: Other documents, ``crowd-1`` and so on.
        crowd_versions: Of each of these.
        crowd_chunks: In each version of these.
        crowd_event: The type of their events in their latest version.
        jobs: How many.
        job_type: SQL of the type of job ``number``.
        job_due: SQL of the seconds until it is due.
        job_status: What they are.
        is_analyzed: Whether the planner knows anything of it.
    """

    versions: int = 1
    chunks: int = 1
    crowd: int = 0
    crowd_versions: int = 1
    crowd_chunks: int = 1
    crowd_event: str = "added"
    jobs: int = 0
    job_type: str = "number % 20"
    job_due: str = "-number"
    job_status: str = "new"
    is_analyzed: bool = True


# The first version of a document writes all its chunks, each later one its chunk 0; every fortieth has a vector.
_STATEMENTS = (
    "SET LOCAL session_replication_role = replica",  # the rows are what the triggers would make of them
    """
    CREATE TEMPORARY TABLE document ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, 'target' AS article_id, {versions} AS versions, {chunks} AS chunks,
        'added' AS event
    UNION ALL
    SELECT gen_random_uuid(), 'crowd-' || number, {crowd_versions}, {crowd_chunks}, '{crowd_event}'
    FROM generate_series(1, {crowd}) AS number
    """,
    """
    CREATE TEMPORARY TABLE version ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, d.id AS document_id, article_id, chunks, event, number, number = versions AS is_last
    FROM document d, generate_series(1, d.versions) AS number
    """,
    """
    INSERT INTO rag_documents (id, article_id, current_version_id)
    SELECT document_id, article_id, id FROM version WHERE is_last
    """,
    """
    INSERT INTO rag_document_versions
        (id, document_id, version_number, source_hash, chunker_version, embedder_version, title)
    SELECT id, document_id, number, 'hash ' || number, 'chunker', 'model', article_id FROM version
    """,
    """
    CREATE TEMPORARY TABLE chunk ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, v.id AS version_id, document_id, number, ordinal,
        is_last OR ordinal > 0 AS is_current,
        'text ' || ordinal || ' of ' || article_id || CASE ordinal WHEN 0 THEN ' in ' || number ELSE '' END AS content
    FROM version v, generate_series(0, CASE number WHEN 1 THEN chunks - 1 ELSE 0 END) AS ordinal
    """,
    """
    INSERT INTO rag_chunks (id, version_id, ordinal, content, is_current, embedding)
    SELECT id, version_id, ordinal, content, is_current AND event <> 'deleted', CASE WHEN n % 40 = 0 THEN
        (SELECT array_agg(random() - 0.5) FROM generate_series(1, 768) WHERE n > 0)::vector END
    FROM (SELECT chunk.*, event, row_number() OVER () AS n FROM chunk JOIN document d ON d.id = document_id) c
    """,
    """
    INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
    SELECT v.id, c.id, c.ordinal, CASE
        WHEN v.is_last AND v.event = 'deleted' THEN 'deleted'
        WHEN v.number = c.number THEN v.event
        ELSE 'unchanged' END::chunk_event_type
    FROM version v JOIN chunk c ON c.document_id = v.document_id
    WHERE c.number = v.number OR c.number = 1 AND c.ordinal > 0
    """,
    """
    INSERT INTO rag_jobs (job_type, payload, priority, run_at, status, finished_at)
    SELECT 'type ' || {job_type}, jsonb_build_object('number', number), number % {jobs} / 10,
        now() + interval '1 s' * ({job_due}), '{job_status}', CASE '{job_status}' WHEN 'completed' THEN now() END
    FROM generate_series(1, {jobs}) AS number
    """,
    """
    INSERT INTO rag_jobs (job_type, payload, run_at)
    SELECT 'target', '{{}}', now() - interval '1 s' * number FROM generate_series(1, least(20, {jobs})) AS number
    """,
)


_TABLES = ("rag_documents", "rag_document_versions", "rag_chunks", "rag_chunk_events", "rag_jobs")


def fill(connection: psycopg.Connection[TupleRow], corpus: Corpus) -> None:
    """Insert a corpus into an empty database at head.

    Args:
        connection: In autocommit, as superuser.
        corpus: What to insert.
    """
    for table in _TABLES:
        connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
    with connection.transaction():
        for statement in _STATEMENTS:
            connection.execute(statement.format(**vars(corpus)).encode())
    if corpus.is_analyzed:
        analyze(connection)


def analyze(connection: psycopg.Connection[TupleRow]) -> None:
    """Let the planner know what the tables hold."""
    connection.execute(f"VACUUM (ANALYZE) {', '.join(_TABLES)}".encode())


def corpora(*, chunks: int, crowd: int, versions: int) -> Mapping[str, Mapping[str, Corpus]]:
    """Return corpora by what the target is; the first of each is even: all documents are like the target.

    Those of a target have about as many chunks: `crowd`.
    """
    old_chunks = versions + 19  # the first version writes 20, each other one
    big = Corpus(chunks=chunks, crowd=crowd)
    old = Corpus(versions=versions, chunks=20, crowd=crowd)
    jobs = Corpus(jobs=crowd)
    return {
        "many chunks": {
            "even": Corpus(chunks=chunks, crowd=crowd // chunks, crowd_chunks=chunks),
            "skewed": big,
            "not analyzed": replace(big, is_analyzed=False),
            "others deleted": replace(big, crowd_event="deleted"),
        },
        "many versions": {
            "even": replace(old, crowd=crowd // old_chunks, crowd_versions=versions, crowd_chunks=20),
            "skewed": old,
            "not analyzed": replace(old, is_analyzed=False),
        },
        "one chunk": {
            "even": Corpus(crowd=crowd),
            "among large documents": Corpus(crowd=crowd // chunks, crowd_chunks=chunks),
            "among old documents": Corpus(
                crowd=crowd // old_chunks, crowd_versions=versions, crowd_chunks=20
            ),
            "not analyzed": Corpus(crowd=crowd // chunks, crowd_chunks=chunks, is_analyzed=False),
        },
        "jobs": {
            "even": jobs,
            "one type": replace(jobs, job_type="'bulk'"),
            "later": replace(jobs, job_due="number"),
            "completed": replace(jobs, job_status="completed"),
            "not analyzed": replace(jobs, is_analyzed=False),
        },
    }


NAMES: Any = {"source_hash": "new", "chunker_version": "chunker", "embedder_version": "model"}
VECTOR = np.random.default_rng(1).standard_normal(768).astype(np.float32)


@dataclass(frozen=True)
class Work:
    """A piece of work on the target: what is done before it, and itself, which alone is measured.

    Attributes:
        do: Itself, with what the preparation has returned.
        prepare: What is done before it, in its transaction.
        is_filtered: Whether its statement is one whose generic plan PostgreSQL is not to choose, by its cost.
        is_of_all: Whether it goes through all documents, of which corpora have more or fewer.
        is_committing: Whether it wants no transaction to be open, and commits: it gets a database of its own.
    """

    do: Callable[[Session, Any], object]
    prepare: Callable[[Session], Any] = lambda _: None
    is_filtered: bool = False
    is_of_all: bool = False
    is_committing: bool = False


def _version_ids(session: Session) -> list[UUID]:
    statement = sa.text(
        "SELECT v.id FROM rag_documents d JOIN rag_document_versions v ON v.document_id = d.id"
        " WHERE article_id = 'target' ORDER BY version_number"
    )
    return list(session.scalars(statement))


def _texts(session: Session) -> list[str]:
    return [row.content for row in session.execute(version_chunks(_version_ids(session)[-1]))]


def _changed(session: Session) -> VersionPlan:
    texts = [f"{text} new" if place % 20 == 0 else text for place, text in enumerate(_texts(session))]
    return plan_version(session, "target", texts, **NAMES)


def _publish(session: Session, plan: VersionPlan, *, copy_unchanged: bool = False) -> None:
    publish(session, plan, [None] * len(plan.texts_to_embed), copy_unchanged=copy_unchanged)


def _published_another(session: Session) -> VersionPlan:
    """Leave the session with the plans that the triggers' functions made for another document."""
    texts = session.scalars(
        sa.text(
            "SELECT content FROM rag_documents d JOIN rag_chunks c ON c.version_id = d.current_version_id"
            " WHERE article_id = 'crowd-1' ORDER BY ordinal"
        )
    )
    _publish(session, plan_version(session, "crowd-1", [f"{text}!" for text in texts], **NAMES))
    return _changed(session)


def _publish_changed(session: Session) -> None:
    _publish(session, _changed(session))


def _settle(session: Session, _: object) -> None:
    """Let the deferred triggers do now what they do at the commit."""
    session.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))


def _delete(session: Session) -> None:
    _settle(session, delete_documents(session, ["target"]))


def _fill(session: Session, plan: VersionPlan) -> None:
    waiting = [place.content for place in plan.places if place.is_pending][:20]
    publish(session, plan, dict.fromkeys(waiting, VECTOR))


def _same(session: Session) -> VersionPlan:
    return plan_version(session, "target", _texts(session), **NAMES)


def _up_to_date(session: Session) -> VersionPlan:
    _publish_changed(session)
    return _same(session)


def _waiting(session: Session) -> list[UUID]:
    rows = session.execute(version_chunks(_version_ids(session)[-1])).all()
    return [row.chunk_id for row in rows][:20]


def _plan_many(session: Session, texts: list[str]) -> None:
    plan_versions(
        session,
        [(VersionPlan("target", "new", "chunker", "model", None, None, None), CheckedContents(texts))],
    )


def _publish_many(session: Session, texts: list[str]) -> None:
    contents = {"target": [f"{text}!" for text in texts]} | {f"new-{n}": ["text of it"] for n in range(10)}
    documents = [
        BulkDocument(article_id=article_id, contents=each, embeddings=None, **NAMES)
        for article_id, each in contents.items()
    ]
    connection = session.get_bind()
    assert isinstance(connection, sa.Connection)
    publish_many(connection, documents)


def _claim(session: Session) -> list[jobs.ClaimedJob]:
    return jobs.claim(session, "worker", ["target"], limit=10)


def _enqueue_by_key(session: Session) -> None:
    for n in range(5):
        jobs.enqueue(session, "target", {"n": n}, dedupe_key=f"key {n}")


_OF_DOCUMENTS = {
    "plan": Work(lambda s, texts: plan_version(s, "target", texts, **NAMES), _texts),
    "plan with other texts": Work(
        lambda s, texts: plan_version(s, "target", [f"{text}!" for text in texts], **NAMES), _texts
    ),
    "plan anew": Work(
        lambda s, texts: plan_version(s, "target", texts, **NAMES | {"embedder_version": "new"}), _texts
    ),
    "plan several": Work(_plan_many, _texts),
    "publish": Work(_publish, _changed),
    "publish after another": Work(_publish, _published_another),
    "publish a copy": Work(lambda s, plan: _publish(s, plan, copy_unchanged=True), _changed),
    "publish embeddings": Work(_fill, _same),
    "fill in embeddings": Work(_fill, _up_to_date),
    "store embeddings": Work(
        lambda s, ids: store_embeddings(s, ids, np.tile(VECTOR, (len(ids), 1))), _waiting
    ),
    "skip embeddings": Work(lambda s, ids: skip_embeddings(s, dict.fromkeys(ids, "no")), _waiting),
    "activate": Work(lambda s, _: activate_version(s, "target", 1), _publish_changed),
    "retire": Work(lambda s, _: retire_document(s, "target")),
    "prune": Work(lambda s, _: prune_versions(s, keep=1, article_ids=["target"]), is_committing=True),
    "purge": Work(lambda s, _: purge_document(s, "target")),
    "purge several": Work(lambda s, _: purge_documents(s, ["target", "nobody's"], erase=True)),
    "delete": Work(lambda s, _: _settle(s, delete_documents(s, ["target", "nobody's"]))),
    "undelete": Work(lambda s, _: _settle(s, undelete_document(s, "target")), _delete),
    "version": Work(lambda s, ids: s.execute(version_chunks(ids[-1])).all(), _version_ids),
    "difference": Work(lambda s, ids: s.execute(version_diff(ids[0], ids[-1])).all(), _version_ids),
    "history": Work(lambda s, _: s.execute(chunk_history("target")).all()),
    "pending": Work(lambda s, _: s.execute(pending_embeddings()).all()),
    "nearest": Work(lambda s, _: s.execute(nearest_chunks(VECTOR)).all()),
    "nearest of the document": Work(
        lambda s, _: s.execute(nearest_chunks(VECTOR, article_ids=["target"])).all(), is_filtered=True
    ),
    "hybrid": Work(lambda s, _: s.execute(hybrid_search(VECTOR, "target")).all()),
    "hybrid of the document": Work(
        lambda s, _: s.execute(hybrid_search(VECTOR, "target", article_ids=["target"])).all(),
        is_filtered=True,
    ),
    "verify": Work(lambda s, _: s.execute(broken_documents(["target"])).all()),
    "verify all": Work(lambda s, _: s.execute(broken_documents()).all(), is_of_all=True),
    "publish many": Work(_publish_many, _texts, is_committing=True),
}
_OF_JOBS = {
    "enqueue": Work(
        lambda s, _: jobs.enqueue_many(
            s, [jobs.NewJob(job_type="target", payload={"n": n}) for n in range(20)]
        )
    ),
    "enqueue by key": Work(lambda s, _: _enqueue_by_key(s), _enqueue_by_key),
    "claim": Work(lambda s, _: _claim(s)),
    "claim any": Work(lambda s, _: jobs.claim(s, "worker", limit=10)),
    "heartbeat": Work(lambda s, claimed: jobs.heartbeat(s, claimed[0]), _claim),
    "complete": Work(lambda s, claimed: jobs.complete_many(s, claimed), _claim),
    "fail": Work(lambda s, claimed: jobs.fail(s, claimed[0], "no"), _claim),
    "give back": Work(lambda s, claimed: jobs.give_back(s, claimed[0]), _claim),
    "cancel": Work(lambda s, claimed: jobs.cancel(s, claimed[0].id), _claim),
    "prune jobs": Work(lambda s, _: jobs.prune(s, timedelta(days=1))),
}


def works(target: str) -> Mapping[str, Work]:
    """Return the pieces of work on a target, by name.

    Searches first: what others undo stays in the tables as dead rows, which the planner takes for more live ones, and
    which an index of words hands over.
    """
    found = _OF_JOBS if target == "jobs" else _OF_DOCUMENTS
    return dict(sorted(found.items(), key=lambda named: not named[1].is_filtered))
