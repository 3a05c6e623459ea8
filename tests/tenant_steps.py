"""Steps of a tenant's life, each by our own functions alone: for a database without triggers, and for Citus.

Each step makes what it needs and leaves is_current right. `STEPS` names them; `check` looks at what all of them leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from embedding_models import count_stale, do_jobs
from embedding_models import embed as embed_small
from publishing import assert_consistent, embed, make_plan, publish_texts, read_current
from ragschema import BulkDocument, ChunkText, Erase, Source, chat, hybrid_search, jobs, nearest_chunks
from ragschema import collections as corpus
from ragschema.chat import NewMessage
from ragschema.database.options import Options
from ragschema.embedding_models import (
    activate_model,
    add_model,
    drop_model,
    enqueue_backfill,
    find_model,
    index_model,
    rollback_model,
)
from ragschema.graph import NewEntity, NewRelation, pending_extraction, record_extraction
from ragschema.jobs import NewJob
from ragschema.publishing import (
    activate_version,
    delete_document,
    delete_documents,
    prune_versions,
    publish,
    publish_many,
    purge_deleted,
    purge_document,
    purge_documents,
    retire_document,
    set_metadata,
    skip_embeddings,
    store_embeddings,
    undelete_document,
)
from ragschema.queries import chunk_history, pending_embeddings, version_chunks, version_diff

MINUTE = timedelta(minutes=1)
Step = Callable[[Session, Options], None]


def _contents(session: Session, article_id: str) -> list[str]:
    return [row.content for row in read_current(session, article_id)]


def publish_a_first_version(session: Session, options: Options) -> None:
    published = publish_texts(session, "first", ["a", "b"])
    session.commit()
    assert (published.version_number, published.added) == (1, 2)
    assert _contents(session, "first") == ["a", "b"]


def publish_a_next_version(session: Session, options: Options) -> None:
    publish_texts(session, "next", ["a", "b", "c"])
    session.commit()
    published = publish_texts(session, "next", ["a", "new", "c"])
    session.commit()
    assert (published.version_number, published.updated, published.unchanged) == (2, 1, 2)
    assert _contents(session, "next") == ["a", "c", "new"]


def publish_what_is_up_to_date(session: Session, options: Options) -> None:
    publish_texts(session, "same", ["a"])
    session.commit()
    assert not publish_texts(session, "same", ["a"]).is_new
    session.commit()


def publish_copies_of_what_is_unchanged(session: Session, options: Options) -> None:
    publish_texts(session, "copies", ["a", "b"])
    session.commit()
    version = publish_texts(session, "copies", ["a", "b", "c"], copy_unchanged=True)
    session.commit()
    assert {row.version_id for row in read_current(session, "copies")} == {version.id}


def publish_places_metadata_and_source(session: Session, options: Options) -> None:
    texts = [
        ChunkText("a", start=0, end=1, details={"page": 1}, token_count=1),
        ChunkText("b", start=2, end=3),
    ]
    said: dict[str, Any] = {"metadata": {"lang": "nl"}, "source": Source("a.pdf", "application/pdf", 3)}
    plan = make_plan(session, "placed", cast(Any, texts), **said)
    publish(session, plan, [embed("a"), embed("b")])
    session.commit()
    hit = session.execute(nearest_chunks(embed("a"), metadata={"lang": "nl"}, limit=1)).one()
    assert (hit.content, hit.end_offset, hit.details) == ("a", 1, {"page": 1})
    described = set_metadata(session, "placed", {"year": 2026}, merge=True)
    session.commit()
    assert described.metadata == {"lang": "nl", "year": 2026}
    publish(session, make_plan(session, "placed", ["a", "c"]), [embed("c")])
    session.commit()
    assert _contents(session, "placed") == ["a", "c"]


def store_embeddings_that_were_to_come(session: Session, options: Options) -> None:
    publish(session, make_plan(session, "pending", ["p", "q", "r"]), None)
    session.commit()
    waiting = {row.content: row.chunk_id for row in session.execute(pending_embeddings())}
    session.commit()
    assert store_embeddings(session, [waiting["p"]], [embed("p")]).stored == (waiting["p"],)
    assert skip_embeddings(session, {waiting["q"]: "too long"}) == 1
    session.commit()
    publish(session, make_plan(session, "pending", ["p", "q", "r"]), {"r": embed("r"), "q": None})
    session.commit()
    found = {row.content for row in read_current(session, "pending") if row.embedding}
    assert found == {"p", "r"}


def activate_another_version(session: Session, options: Options) -> None:
    publish_texts(session, "back", ["a", "b"])
    session.commit()
    publish_texts(session, "back", ["c"])
    session.commit()
    assert activate_version(session, "back", 1).shown == 2
    session.commit()
    assert _contents(session, "back") == ["a", "b"]


def retire_a_document(session: Session, options: Options) -> None:
    publish_texts(session, "retired", ["a"])
    session.commit()
    retire_document(session, "retired")
    session.commit()
    assert _contents(session, "retired") == []
    publish_texts(session, "retired", ["a", "b"])
    session.commit()
    assert _contents(session, "retired") == ["a", "b"]


def delete_and_undelete(session: Session, options: Options) -> None:
    for article in ("gone", "gone too"):
        publish_texts(session, article, ["a", "b"])
        session.commit()
    assert delete_document(session, "gone").chunks == 2
    session.commit()
    assert delete_documents(session, ["gone", "gone too"]).chunks == 2
    session.commit()
    assert _contents(session, "gone") == _contents(session, "gone too") == []
    assert undelete_document(session, "gone").chunks == 2
    session.commit()
    publish(session, make_plan(session, "gone too", ["a", "z"], undelete=True), [embed("z")])
    session.commit()
    assert _contents(session, "gone too") == ["a", "z"]


def publish_many_documents(session: Session, options: Options) -> None:
    def document(number: int, texts: list[str]) -> BulkDocument:
        return BulkDocument(
            f"bulk {number}", texts, [embed(text) for text in texts], "-".join(texts), "c1", "e1"
        )

    session.close()
    with session.get_bind().connect() as connection:  # type: ignore[union-attr]
        loaded = publish_many(connection, [document(n, ["a", f"b{n}"]) for n in range(5)])
        assert loaded.added == 5
        again = publish_many(
            connection, [document(n, ["a", "c"] if n == 3 else ["a", f"b{n}"]) for n in range(7)]
        )
    assert (again.added, again.changed, again.skipped) == (2, 1, 4)
    assert _contents(session, "bulk 3") == ["a", "c"]
    session.commit()


def prune_old_versions(session: Session, options: Options) -> None:
    for texts in (["a", "b"], ["b", "c"], ["b", "d"]):
        publish_texts(session, "pruned", texts)
        session.commit()
    pruning = prune_versions(session, keep=0, article_ids=["pruned"])
    assert (pruning.versions, pruning.chunks, pruning.rehomed) == (2, 2, 1)
    assert _contents(session, "pruned") == ["b", "d"]
    session.commit()


def purge(session: Session, options: Options) -> None:
    for article in ("purged", "purged too", "purged late"):
        publish_texts(session, article, ["a", "b"])
        jobs.enqueue(session, "purge", {}, dedupe_key=article)
        session.commit()
    assert purge_document(session, "purged").chunks == 2
    session.commit()
    purged = purge_documents(session, ["purged too", "unknown"], erase=Erase())
    session.commit()
    assert (purged.chunks, purged.unknown, purged.erased) == (2, ("unknown",), {"rag_jobs": 1})
    delete_document(session, "purged late")
    session.commit()
    assert purge_deleted(session, before=datetime.now(UTC) + MINUTE).documents == 1


def search(session: Session, options: Options) -> None:
    for number in range(12):
        publish_texts(session, f"found {number}", [f"the ticket {number} of a train", f"other {number}"])
        session.commit()
    query = embed("the ticket 3 of a train")
    hits = session.execute(nearest_chunks(query, limit=5)).all()
    assert (len(hits), hits[0].article_id, round(hits[0].distance, 3)) == (5, "found 3", 0)
    of_one = session.execute(nearest_chunks(query, article_ids=["found 7"], limit=5)).all()
    assert {hit.article_id for hit in of_one} == {"found 7"}
    assert (
        len(session.execute(nearest_chunks(query, limit=5, exact_fallback=True, max_distance=0.5)).all()) == 1
    )
    session.commit()


def search_by_words(session: Session, options: Options) -> None:
    publish_texts(session, "worded", ["A heron stands in the reeds", "Nothing of it"])
    session.commit()
    hits = session.execute(hybrid_search(embed("heron"), "heron reeds", limit=3)).all()
    assert "worded" in {hit.article_id for hit in hits}
    session.commit()


def read_history(session: Session, options: Options) -> None:
    old = publish_texts(session, "history", ["a", "b"])
    session.commit()
    new = publish_texts(session, "history", ["a", "c"])
    session.commit()
    assert len(session.execute(version_chunks(old.id)).all()) == 2
    assert len(session.execute(version_diff(old.id, new.id)).all()) == 2
    assert len(session.execute(chunk_history("history")).all()) > 2
    session.commit()


def collect(session: Session, options: Options) -> None:
    made = corpus.create_collection(session, "manuals", "What comes with a thing", details={"a": 1})
    other = corpus.create_collection(session, "others", "The rest")
    session.commit()
    plan = make_plan(session, "collected", ["in a manual"], collection_ids=[made.id])
    publish(session, plan, [embed("in a manual")])
    publish_texts(session, "uncollected", ["in no manual"])
    session.commit()
    corpus.add_documents(session, other.id, ["collected", "uncollected"])
    session.commit()
    hits = session.execute(nearest_chunks(embed("x"), collection_ids=[made.id])).all()
    assert [hit.article_id for hit in hits] == ["collected"]
    assert [each.documents for each in corpus.list_collections(session)] == [1, 2]
    corpus.update_collection(session, made.id, description="d")
    corpus.remove_documents(session, other.id, ["uncollected"])
    corpus.delete_collection(session, other.id)
    session.commit()


def enqueue_jobs(session: Session, options: Options) -> None:
    jobs.enqueue(session, "one", {"a": 1})
    first = jobs.enqueue(session, "keyed", {"a": 1}, dedupe_key="k")
    session.commit()
    assert jobs.enqueue(session, "keyed", {"a": 2}, dedupe_key="k") == first
    many = [
        NewJob(job_type="many", payload={"n": n}, priority=n, dedupe_key=f"m{n % 2}" if n > 1 else None)
        for n in range(5)
    ]
    ids = jobs.enqueue_many(session, many)
    session.commit()
    assert (len(ids), len(set(ids))) == (5, 4)
    job = jobs.claim(session, "w", ["keyed"])[0]
    session.commit()
    assert (job.id, job.payload) == (first, {"a": 2})
    assert jobs.enqueue(session, "keyed", {"a": 3}, dedupe_key="k") == first
    assert jobs.complete(session, job)
    session.commit()
    assert jobs.claim(session, "w", ["keyed"])[0].payload == {"a": 3}
    session.commit()


def do_claimed_jobs(session: Session, options: Options) -> None:
    jobs.enqueue_many(session, [NewJob(job_type="do", payload={"n": n}) for n in range(8)])
    session.commit()
    claimed = jobs.claim(session, "w", ["do"], limit=7)
    session.commit()
    assert len(claimed) == 7
    assert jobs.heartbeat(session, claimed[0], progress={"at": 1})
    assert jobs.complete(session, claimed[0])
    assert len(jobs.complete_many(session, claimed[1:3])) == 2
    assert str(jobs.fail(session, claimed[3], "no", retry_in=MINUTE)) == "new"
    assert str(jobs.fail(session, claimed[4], ValueError("never"), permanent=True)) == "failed"
    assert jobs.give_back(session, claimed[5])
    assert jobs.cancel(session, claimed[6].id, "stop")
    session.commit()
    assert not jobs.complete(session, claimed[6])
    assert jobs.retry(session, claimed[4].id)
    assert {each.job_type for each in jobs.stats(session)} >= {"do"}
    session.commit()
    assert len(jobs.claim(session, "w", limit=100)) >= 3
    session.commit()


def take_over_expired_jobs(session: Session, options: Options) -> None:
    jobs.enqueue(session, "late", {})
    session.commit()
    job = jobs.claim(session, "w", ["late"])[0]
    assert jobs.heartbeat(session, job, lease=timedelta(microseconds=1))
    session.execute(sa.text("SELECT set_config('rag_jobs.leases_seen_at', '', false)"))
    session.commit()
    again = jobs.claim(session, "v", ["late"])[0]
    assert (again.id, again.attempt) == (job.id, 2)
    assert jobs.complete(session, again)
    session.commit()
    assert jobs.prune(session, timedelta(0)) >= 1
    session.commit()


def schedule_jobs(session: Session, options: Options) -> None:
    jobs.add_schedule(session, "nightly", "tidy", {}, every=MINUTE)
    session.commit()
    session.execute(sa.text("UPDATE rag_job_schedules SET next_run_at = '2026-01-01Z'"))
    session.commit()
    assert len(jobs.enqueue_due(session)) == 1
    assert jobs.pause_schedule(session, "nightly")
    assert jobs.resume_schedule(session, "nightly")
    assert jobs.remove_schedule(session, "nightly")
    session.commit()


def converse(session: Session, options: Options) -> None:
    publish_texts(session, "cited", ["A ticket is three euros."])
    session.commit()
    hits = session.execute(nearest_chunks(embed("A ticket is three euros."), limit=1)).all()
    started = chat.create_session(session, "ann", title="Tickets")
    asked = chat.add_message(session, started.id, NewMessage("user", "How much?"))
    answer = NewMessage("assistant", "Three euros.")
    told = chat.add_message(session, started.id, answer, parent_id=asked.id, citations=hits)
    again = chat.branch(session, told.id, NewMessage("assistant", "It is three."), citations=hits, cited=[1])
    session.commit()
    assert [each.content for each in chat.message_path(session, again.id)] == ["How much?", "It is three."]
    assert [str(each.state) for each in chat.citation_status(session, told.id)] == ["current"]
    chat.give_feedback(session, told.id, "ann", 1)
    chat.give_feedback(session, told.id, "ann", -1, "no")
    assert [each.rating for each in chat.list_feedback(session, told.id)] == [-1]
    assert chat.count_messages(session, started.id) == 3
    assert chat.erase_citations(session, [hits[0].document_id])
    session.commit()
    assert chat.delete_session(session, started.id)
    session.commit()
    assert chat.prune_sessions(session, before=datetime.now(UTC) + MINUTE).sessions >= 1
    session.commit()


def record_facts(session: Session, options: Options) -> None:
    publish_texts(session, "facts", ["Ada knows Bob.", "Bob knows Eve."])
    session.commit()
    ada, bob, eve = (NewEntity("person", name) for name in ("Ada", "Bob", "Eve"))
    for row, (one, other) in zip(read_current(session, "facts"), ((ada, bob), (bob, eve)), strict=True):
        knows = NewRelation(("person", one.name), "knows", ("person", other.name))
        record_extraction(session, row.id, "x 1", [one, other], [knows])
        session.commit()
    publish_texts(session, "facts", ["Ada knows Bob."])
    session.commit()
    names = sa.text("SELECT name FROM rag_entities WHERE is_current ORDER BY 1")
    assert session.scalars(names).all() == ["Ada", "Bob"]
    activate_version(session, "facts", 1)
    session.commit()
    assert session.scalars(names).all() == ["Ada", "Bob", "Eve"]
    assert pending_extraction(session, "x 2")
    purge_document(session, "facts")
    session.commit()
    assert session.scalars(names).all() == []


def change_the_model(session: Session, options: Options) -> None:
    publish_texts(session, "by the first", ["by the first"])  # a model of an empty corpus is active at once
    session.commit()
    session.close()
    engine = session.get_bind()
    assert isinstance(engine, sa.Engine)
    add_model(options, "small", 16)
    plan = make_plan(session, "by both", ["small text", "x of both"])
    publish(session, plan, [embed(text) for text in plan.texts_to_embed])
    session.commit()
    enqueue_backfill(options, "small", batch=10)
    assert do_jobs(engine) > 0
    index_model(options, "small")
    query = embed_small(["small text"])[0]
    hits = session.execute(nearest_chunks(query, model=find_model(session, "small"), limit=1)).all()
    assert [hit.content for hit in hits] == ["small text"]
    session.commit()
    activate_model(options, "small", least_recall=0, allow_missing=100)
    plan = make_plan(session, "by small", ["by small"])
    publish(session, plan, embed_small(["by small"]), model_embeddings={"default": [embed("by small")]})
    session.commit()
    assert session.execute(nearest_chunks(embed_small(["by small"])[0], limit=1)).one().content == "by small"
    session.commit()
    activate_version(session, "by both", 1)
    delete_document(session, "by both")
    session.commit()
    assert count_stale(session) == 0
    session.commit()
    rollback_model(options)
    drop_model(options, "small", allow_data_loss=True)


STEPS: Mapping[str, Step] = {
    step.__name__: step
    for step in (
        publish_a_first_version,
        publish_a_next_version,
        publish_what_is_up_to_date,
        publish_copies_of_what_is_unchanged,
        publish_places_metadata_and_source,
        store_embeddings_that_were_to_come,
        activate_another_version,
        retire_a_document,
        delete_and_undelete,
        publish_many_documents,
        prune_old_versions,
        purge,
        search,
        search_by_words,
        read_history,
        collect,
        enqueue_jobs,
        do_claimed_jobs,
        take_over_expired_jobs,
        schedule_jobs,
        converse,
        record_facts,
        change_the_model,
    )
}


def run(step: Step, engine: sa.Engine, options: Options) -> None:
    """Run a step, and look at what it leaves."""
    with sessionmaker(engine)() as session:
        step(session, options)
        session.rollback()
        assert_consistent(session)
        assert count_stale(session) == 0
