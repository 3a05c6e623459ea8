"""Purges and erasure: what was asked for is gone and nothing else, and what is left is said."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from conftest import Command, DatabaseAt
from publishing import (
    assert_consistent,
    consistent_connection,
    embed,
    make_plan,
    publish_texts,
    publishing_database,
    read_current,
)
from ragschema import Base, aio, chat, jobs, nearest_chunks
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model
from ragschema.jobs.schedules import add_schedule
from ragschema.publishing import (
    Erase,
    PublishingError,
    PurgedDocuments,
    UnknownDocument,
    delete_documents,
    publish,
    purge_deleted,
    purge_document,
    purge_documents,
    undelete_document,
)
from ragschema.publishing.erasure import REACHES
from test_json import check
from test_publishing_concurrency import start_waiting

shared = publishing_database
connection = consistent_connection
COUNTS = {
    "documents": "rag_documents",
    "versions": "rag_document_versions",
    "chunks": "rag_chunks",
    "events": "rag_chunk_events",
    "embeddings": "rag_chunk_embeddings",
}


def count_rows(session: Session | sa.Connection) -> dict[str, int]:
    """Return how many rows there are, by the attribute of a purge that counts them."""
    return {
        name: session.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0 for name, table in COUNTS.items()
    }


def write_history(session: Session | sa.Connection, article: str) -> None:
    """Publish versions that share chunks, take one up again, and say of some that they were deleted."""
    for texts in (["a", "b"], ["b", "c"], ["c"], ["a", "c", "d"]):
        publish_texts(session, article, texts)


def age(session: Session | sa.Connection, article_ids: Sequence[str], days: int) -> None:
    """Delete documents as of some days ago."""
    delete_documents(session, article_ids)
    session.execute(
        sa.text(
            "UPDATE rag_documents SET deleted_at = now() - :days * interval '1 day' WHERE article_id = ANY(:ids)"
        ),
        {"days": days, "ids": list(article_ids)},
    )


def test_a_set_of_documents_is_destroyed_with_every_row_and_no_other_row(
    connection: sa.Connection, article: str
) -> None:
    """Deleted ones and others; as many statements for five as for one; a dry run counts the same."""
    names = [f"{article} {number}" for number in range(5)]
    before = count_rows(connection)
    for name in (*names, f"{article} kept"):
        write_history(connection, name)
    delete_documents(connection, names[:2])
    with_all = count_rows(connection)
    would_go = purge_documents(connection, [*names, "nobody's"], dry_run=True)
    assert count_rows(connection) == with_all
    statements: list[str] = []
    sa.event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
    gone = purge_documents(connection, [*names, "nobody's"])
    assert gone == would_go
    assert gone.unknown == ("nobody's",)
    assert len(statements) == 7
    left = count_rows(connection)
    assert {name: getattr(gone, name) for name in COUNTS} == {
        name: with_all[name] - left[name] for name in COUNTS
    }
    assert gone.documents == 5
    kept = purge_document(connection, f"{article} kept")
    assert (kept.versions * 5, kept.chunks * 5, kept.events * 5) == (gone.versions, gone.chunks, gone.events)
    assert count_rows(connection) == before
    assert purge_documents(connection, []) == PurgedDocuments()


def test_embeddings_of_other_models_are_counted_and_go(database: Database, article: str) -> None:
    add_model(database, "small", 4)
    engine = sa.create_engine(database.url(), poolclass=sa.NullPool)
    with Session(engine) as session, session.begin():
        for name in (f"{article} 1", f"{article} 2"):
            plan = make_plan(session, name, ["a", "b"])
            publish(session, plan, {"a": [1.0, 0, 0, 0], "b": [0, 1.0, 0, 0]})
        assert purge_documents(session, [f"{article} 1", f"{article} 2"]).embeddings == 4
        assert count_rows(session) == dict.fromkeys(COUNTS, 0)


def test_what_was_deleted_long_ago_is_destroyed_batch_by_batch(shared: Database, article: str) -> None:
    """Nothing else: not what was deleted since, nor what was undeleted."""
    engine = sa.create_engine(shared.url())
    names = [f"{article} {number}" for number in range(7)]
    before = datetime.now(UTC) - timedelta(days=30)
    with Session(engine) as session:
        for name in names:
            publish_texts(session, name, ["a"])
        age(session, names[:5], 31)
        age(session, names[5:6], 29)
        undelete_document(session, names[4])
        session.commit()
        would_go = purge_deleted(session, before=before, batch_size=3, dry_run=True)
        assert (would_go.documents, would_go.chunks) == (4, 4)
        commits: list[object] = []
        sa.event.listen(engine, "commit", commits.append)
        assert purge_deleted(session, before=before, batch_size=3) == would_go
        assert len(commits) == 2
        assert purge_deleted(session, before=before) == PurgedDocuments()
        left = session.scalars(
            sa.text("SELECT article_id FROM rag_documents WHERE article_id = ANY(:ids) ORDER BY 1"),
            {"ids": names},
        ).all()
        assert left == names[4:]
        assert_consistent(session)
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"before": datetime(2026, 1, 1)}, "has no time zone"),
        ({"before": date(2026, 1, 1)}, "is date, not datetime"),
        ({"before": timedelta(days=30)}, "is timedelta, not datetime"),
        ({"before": "30d"}, "is str, not datetime"),
        ({"before": datetime(2026, 1, 1, tzinfo=UTC), "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_it_must_be_clear_what_is_destroyed(
    connection: sa.Connection, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PublishingError, match=message):
        purge_deleted(connection, **arguments)


def test_a_transaction_of_the_caller_is_not_committed(connection: sa.Connection) -> None:
    connection.execute(sa.text("SELECT 1"))
    with pytest.raises(PublishingError, match="purge_deleted commits each batch"):
        purge_deleted(connection, before=datetime.now(UTC))


def test_a_document_that_is_undeleted_meanwhile_is_not_destroyed(shared: Database, article: str) -> None:
    engine = sa.create_engine(shared.url())
    with ThreadPoolExecutor(1) as threads, Session(engine) as session:
        publish_texts(session, article, ["a"])
        age(session, [article], 40)
        session.commit()
        undelete_document(session, article)

        def purge(_: Session) -> PurgedDocuments:
            with engine.connect() as other:
                return purge_deleted(other, before=datetime.now(UTC) - timedelta(days=39))

        waiting = start_waiting(engine, threads, purge)
        session.commit()
        assert waiting.result().documents == 0
        assert [row.content for row in read_current(session, article)] == ["a"]
    engine.dispose()


def enqueue(connection: sa.Connection, job_type: str, payload: dict[str, Any], key: str | None) -> None:
    jobs.enqueue(connection, job_type, payload, dedupe_key=key)


def left_jobs(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.text("SELECT job_type FROM rag_jobs ORDER BY 1")))


@pytest.fixture
def transaction(database: Database) -> Iterator[sa.Connection]:
    """A transaction on a database of the test's own, to which everybody's jobs are known."""
    engine = sa.create_engine(database.url(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


def test_erasure_takes_the_jobs_about_a_document_and_says_what_it_leaves(transaction: sa.Connection) -> None:
    """Those that wait and those that are over, by their key; not what runs, has another key, or is a schedule's."""
    for article in ("a", "other"):
        publish_texts(transaction, article, ["text"])
        enqueue(transaction, f"over {article}", {"of": article}, article)
    for job in jobs.claim(transaction, "w", ["over a", "over other"], limit=2):
        jobs.complete(transaction, job)
    enqueue(transaction, "running", {}, "a")
    jobs.claim(transaction, "w", ["running"])
    enqueue(transaction, "waiting", {"text": "of a document"}, "a")
    enqueue(transaction, "deep in", {"ids": [{"article": "a"}]}, None)
    enqueue(transaction, "other key", {"of": "a"}, "a too")
    enqueue(transaction, "nothing", {"of": "ab", "a": 1}, "b")
    transaction.execute(
        sa.text("""
INSERT INTO rag_jobs (job_type, payload, progress, error_message)
VALUES ('far', '{}', '{"after": "a"}', NULL), ('failed', '{}', NULL, 'Article ''a'' is gone'),
    ('far', '{}', '{"after": "ab", "a": 1}', 'Article ''ab'' is gone')
""")
    )
    add_schedule(transaction, "nightly", "crawl", {"articles": ["a"]}, every=timedelta(days=1))
    would = purge_documents(transaction, ["a"], erase=True, dry_run=True)
    done = purge_documents(transaction, ["a"], erase=True)
    assert done == would
    assert done.documents == 1
    assert done.erased == {"rag_jobs": 2}
    assert done.left == (
        "1 row of rag_jobs that a worker is running",
        "4 rows of rag_jobs with another key and a payload, progress or error that names one",
        "1 row of rag_job_schedules whose jobs are about one",
    )
    others = ["deep in", "failed", "far", "far", "nothing", "other key", "over other", "running"]
    assert left_jobs(transaction) == others
    assert purge_documents(transaction, ["other"]).erased == {}
    assert "over other" in left_jobs(transaction)
    later = purge_documents(transaction, ["other"], erase=True)  # though it was purged before
    assert (later.documents, later.erased, later.unknown) == (0, {"rag_jobs": 1}, ("other",))


def test_erasure_takes_quotes_and_names_the_messages_that_may_repeat_them(transaction: sa.Connection) -> None:
    """Of the document, and of one of its name that was purged before."""
    begun = chat.create_session(transaction)

    def cite(article: str) -> UUID:
        publish_texts(transaction, article, ["text"])
        hits = transaction.execute(nearest_chunks(embed("text"), article_ids=[article])).all()
        said = chat.NewMessage("assistant", "It says: text")
        return chat.add_message(transaction, begun.id, said, citations=hits).id

    first = cite("a")
    purge_documents(transaction, ["a"])
    second, other = cite("a"), cite("other")
    would = purge_documents(transaction, ["a"], erase=True, dry_run=True)
    done = purge_documents(transaction, ["a"], erase=True)
    assert done == would
    assert done.erased == {"rag_chat_citations": 2}
    assert done.left == ("2 rows of rag_chat_messages whose text may repeat one",)
    assert done.message_ids == tuple(sorted([first, second]))
    quotes = {each: chat.citation_status(transaction, each)[0].quote for each in (first, second, other)}
    assert quotes == {first: None, second: None, other: "text"}
    again = purge_documents(transaction, ["a"], erase=True)
    assert (again.erased, again.message_ids) == ({}, done.message_ids)


def test_erasure_asks_the_service_for_its_keys_and_its_own_rows(transaction: sa.Connection) -> None:
    publish_texts(transaction, "a", ["text"])
    enqueue(transaction, "one", {}, "embed a")
    enqueue(transaction, "two", {}, "index a")
    enqueue(transaction, "three", {}, "a")
    seen: list[object] = []

    def callback(session: object, article_ids: Sequence[str]) -> list[str]:
        seen.append((session is transaction, [*article_ids], len(read_current(transaction, "a"))))
        return ["object storage: a.pdf"]

    how = Erase(
        dedupe_keys=lambda article_id: [f"embed {article_id}", f"index {article_id}"], callback=callback
    )
    done = purge_documents(transaction, ["a"], erase=how)
    assert (done.erased, done.left) == ({"rag_jobs": 2}, ("object storage: a.pdf",))
    assert left_jobs(transaction) == ["three"]
    assert seen == [(True, ["a"], 1)]


@pytest.mark.parametrize(
    "how",
    [
        Erase(dedupe_keys=lambda article_id: article_id),
        Erase(callback=lambda _session, _ids: "all of it"),
        Erase(dedupe_keys=lambda _: [None]),  # type: ignore[list-item]
    ],
)
def test_what_a_function_of_the_service_returns_is_looked_at(transaction: sa.Connection, how: Erase) -> None:
    publish_texts(transaction, "a", ["text"])
    with pytest.raises(PublishingError):
        purge_documents(transaction, ["a"], erase=how)


def test_erasure_reaches_every_table_that_may_speak_of_a_document() -> None:
    """By a foreign key that deletes, or by an entry of its own: who adds a table says here which."""
    reached = {"rag_documents"}
    tables = Base.metadata.tables
    for _ in tables:
        for table in tables.values():
            keys = table.foreign_key_constraints
            if any(key.referred_table.name in reached and key.ondelete == "CASCADE" for key in keys):
                reached.add(table.name)
    assert len(reached) == 10
    knows_no_document = {"rag_embedding_models", "rag_collections", "rag_chat_sessions", "rag_chat_feedback"}
    knows_no_document |= {"rag_entity_merges"}  # ids alone
    assert reached | {each.table for each in REACHES} | knows_no_document == {*tables}
    assert not reached & {each.table for each in REACHES}


def test_async_code_purges(database: Database, article: str) -> None:
    async def run() -> None:
        engine = create_async_engine(database.url())
        async with engine.begin() as connection:
            for name in (article, f"{article} 2"):
                await connection.run_sync(partial(publish_texts, article_id=name, contents=["a"]))
            assert (await aio.purge_documents(connection, [article], erase=True)).documents == 1
            await aio.delete_document(connection, f"{article} 2")
        async with engine.connect() as connection:
            gone = await aio.purge_deleted(connection, before=datetime.now(UTC) + timedelta(minutes=1))
            assert gone.documents == 1
        await engine.dispose()

    asyncio.run(run())


# rag documents

Rag = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def rag(run: Command, database: Database) -> Rag:
    """Run ``rag documents ...`` on the test's database; it must exit with the code given."""

    def rag(command: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = run("rag", "documents", *shlex.split(command), DATABASE_URL=database.libpq_url())
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        return result

    return rag


def test_the_command_line_deletes_undeletes_and_purges(rag: Rag, database: Database) -> None:
    engine = sa.create_engine(database.url(), poolclass=sa.NullPool)
    with Session(engine) as session, session.begin():
        for name in ("a", "b"):
            write_history(session, name)
    shown = rag("delete a b nobodys", code=1)
    assert shown.stdout == "Deleted 2 documents: search misses 6 chunks.\n"
    assert "Error: There is no document of article 'nobodys'.\n" in shown.stderr
    assert check("documents delete", rag("delete a --json").stdout) == {
        "documents": 0, "chunks": 0, "already": 1, "unknown": [],
    }  # fmt: skip
    assert rag("undelete a").stdout == "Undeleted 1 document: search finds 3 chunks.\n"
    again = check("documents undelete", rag("undelete a nobodys --json", code=1).stdout)
    assert again == {"undeleted": [], "chunks": 0, "unknown": ["nobodys"]}
    shown = rag("purge --deleted-before 30d --dry-run")
    assert shown.stdout == (
        "This would destroy 0 documents, 0 versions, 0 chunks, 0 events and 0 embeddings.\n"
    )
    with Session(engine) as session, session.begin():
        age(session, ["b"], 31)
    would = check("documents purge", rag("purge --deleted-before 30d --dry-run --json").stdout)
    assert isinstance(would, dict)
    assert (would["is_dry_run"], would["purged"]["documents"]) == (True, 1)
    refused = rag("purge --deleted-before 30d", code=2)
    assert refused.stdout == ""
    lost = "1 document, 4 versions, 4 chunks, 10 events and 0 embeddings"
    assert f"This destroys {lost}.\nError: This asks before it changes anything" in refused.stderr
    assert rag("purge --deleted-before 30d --yes").stdout == f"Destroyed {lost}.\n"
    done = check("documents purge", rag("purge a nobodys --erase --yes --json", code=1).stdout)
    assert isinstance(done, dict)
    assert (done["is_dry_run"], done["purged"]["documents"]) == (False, 1)
    with Session(engine) as session:
        assert count_rows(session) == dict.fromkeys(COUNTS, 0)


@pytest.mark.parametrize("command", ["purge --yes", "purge a --deleted-before 30d --yes"])
def test_the_command_line_must_say_which_documents(rag: Rag, command: str) -> None:
    assert "say" in rag(command, code=2).stderr


def test_a_database_that_cannot_delete_yet_says_so(run: Command, database_at: DatabaseAt) -> None:
    url = database_at("20261128130910").libpq_url()
    result = run("rag", "documents", "delete", "a", DATABASE_URL=url)
    assert result.returncode == 3
    assert "Run `rag migrate`." in result.stderr


def test_one_that_is_not_there_is_not_purged(connection: sa.Connection, article: str) -> None:
    with pytest.raises(UnknownDocument, match=article):
        purge_document(connection, article)
