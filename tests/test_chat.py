"""Conversations: trees that cannot tangle, writers that do not wait, citations that outlive what they cite."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from checkouts import rows
from conftest import Command, connect, make_database, make_engine
from publishing import embed, over_asyncpg, publish_texts
from ragschema import aio, chat, hybrid_search, migrations, nearest_chunks
from ragschema.chat import ChatError, CitationState, NewMessage, UnknownMessage, UnknownSession
from ragschema.database.settings import Database
from ragschema.errors import DataLossRefused, RagSchemaError
from ragschema.publishing import (
    activate_version,
    prune_versions,
    purge_document,
    purge_documents,
    retire_document,
)
from test_json import check

database = pytest.fixture(scope="module")(make_database)
engine = pytest.fixture(scope="module")(make_engine)

WRONG: Any = None
LIST: Any = ["a"]
HELLO = NewMessage("user", "Hello.")


def add(session: Session, session_id: UUID, content: str, **arguments: Any) -> chat.StoredMessage:
    role: Any = arguments.pop("role", "user")
    return chat.add_message(session, session_id, NewMessage(role, content), **arguments)


def find(session: Session, article_id: str, content: str) -> list[Any]:
    return list(session.execute(nearest_chunks(embed(content), article_ids=[article_id])))


def states_of(session: Session, message_id: UUID) -> list[str]:
    return [str(each.state) for each in chat.citation_status(session, message_id)]


def test_an_answer_that_is_written_again_is_a_sibling(session: Session) -> None:
    begun = chat.create_session(session, "ann", title="Fares", metadata={"from": "web"})
    assert chat.find_session(session, begun.id) == begun
    asked = add(session, begun.id, "How much?")
    first = add(session, begun.id, "20 euros.", role="assistant", parent_id=asked.id)
    again = chat.branch(session, first.id, NewMessage("assistant", "23 euros.", model="m", output_tokens=3))
    thanks = add(session, begun.id, "Thanks.", parent_id=again.id)
    assert thanks.parent_id == again.id
    assert (asked.parent_id, first.parent_id, again.parent_id) == (None, asked.id, asked.id)
    assert chat.message_path(session, thanks.id) == [asked, again, thanks]
    assert chat.message_path(session, first.id) == [asked, first]
    assert chat.message_path(session, thanks.id, limit=2) == [again, thanks]
    edited = chat.branch(session, asked.id, NewMessage("user", "How much for two?"))
    assert edited.parent_id is None
    assert chat.count_messages(session, begun.id) == 5
    assert add(session, begun.id, "So?").parent_id == edited.id  # below the last one


def test_no_message_follows_one_of_another_session(session: Session) -> None:
    one, other = (chat.create_session(session, "ann") for _ in range(2))
    theirs = add(session, other.id, "Hello.")
    with pytest.raises(UnknownMessage, match="is not in the chat session"):
        add(session, one.id, "Hi.", parent_id=theirs.id)
    with (
        pytest.raises(IntegrityError, match="rag_chat_messages_parent_position_fkey"),
        session.begin_nested(),
    ):
        session.execute(
            sa.text("UPDATE rag_chat_messages SET session_id = :one WHERE id = :id"),
            {"one": one.id, "id": add(session, other.id, "Below.", parent_id=theirs.id).id},
        )


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE rag_chat_messages SET parent_position = :below WHERE position = :above",
        "UPDATE rag_chat_messages SET parent_position = position WHERE position = :above",
        "UPDATE rag_chat_messages SET position = :below + 1 WHERE position = :above",
        "INSERT INTO rag_chat_messages (session_id, position, parent_position, role, content)"
        " VALUES (:session, 7000000, 7000001, 'user', ''), (:session, 7000001, 7000000, 'user', '')",
    ],
)
def test_no_message_is_above_itself_whatever_sql_is_written(session: Session, sql: str) -> None:
    begun = chat.create_session(session)
    above = add(session, begun.id, "above")
    below = add(session, begun.id, "below")
    values = {"above": above.position, "below": below.position, "session": begun.id}
    with pytest.raises(IntegrityError):
        session.execute(sa.text(sql), values)


def test_pages_stay_what_they_are_while_messages_come(session: Session) -> None:
    """All of one transaction, so that their times are the same."""
    begun = chat.create_session(session)
    said = [add(session, begun.id, str(number)) for number in range(7)]
    pages = [chat.messages(session, begun.id, limit=3)]
    while pages[-1]:
        add(session, begun.id, "later")
        pages.append(chat.messages(session, begun.id, before=pages[-1][0].position, limit=3))
    assert [each for page in reversed(pages) for each in page] == said
    assert chat.messages(session, uuid4()) == []


def test_the_latest_sessions_of_a_user_come_by_pages_without_the_deleted(session: Session) -> None:
    user = str(uuid4())
    begun = [chat.create_session(session, user, title=str(number)) for number in range(5)]
    chat.create_session(session)
    for age, each in enumerate(begun):
        session.execute(
            sa.text(
                "UPDATE rag_chat_sessions SET updated_at = now() - make_interval(hours => :age) WHERE id = :id"
            ),
            {"age": 1 + age // 2, "id": each.id},  # two and two at the same time
        )
    assert chat.delete_session(session, begun[4].id)
    found: list[chat.StoredSession] = []
    while page := chat.sessions(session, user, before=found[-1].cursor if found else None, limit=1):
        found += page
    assert {each.id for each in found[:2]} == {each.id for each in begun[:2]}
    assert sorted(each.title or "" for each in found) == ["0", "1", "2", "3"]
    assert user not in {each.user_id for each in chat.sessions(session, None)}
    with pytest.raises(UnknownSession):
        add(session, begun[4].id, "Hello?")
    assert not chat.delete_session(session, begun[4].id)
    assert chat.restore_session(session, begun[4].id)
    add(session, begun[4].id, "Hello.")
    assert chat.rename_session(session, begun[4].id, "Back")
    assert chat.sessions(session, user, limit=1)[0].title == "Back"  # it was continued last
    assert chat.delete_session(session, begun[4].id, for_good=True)
    assert chat.find_session(session, begun[4].id) is None


def test_eight_writers_of_one_session_lose_nothing(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        begun = chat.create_session(session, "eight")

    def write(writer: int) -> list[UUID]:
        leaf: Any = None
        made = []
        for number in range(10):
            with Session(engine) as session, session.begin():
                leaf = add(session, begun.id, f"{writer}.{number}", parent_id=leaf).id
                made.append(leaf)
        return made

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(8)))
    with Session(engine) as session:
        assert chat.count_messages(session, begun.id) == 80
        for writer, ids in enumerate(made):
            path = chat.message_path(session, ids[-1])
            assert [each.content for each in path] == [f"{writer}.{number}" for number in range(10)]
        assert chat.find_session(session, begun.id) == begun  # within its first minute


def test_nobody_waits_for_another_writer_of_the_session(engine: sa.Engine) -> None:
    """The one whose message is the first of a minute marks the session, and commits when it likes."""
    with Session(engine) as session, session.begin():
        begun = chat.create_session(session)
        session.execute(
            sa.text("UPDATE rag_chat_sessions SET updated_at = now() - interval '1 hour' WHERE id = :id"),
            {"id": begun.id},
        )
    with Session(engine) as slow, Session(engine) as fast:
        add(slow, begun.id, "slow")
        fast.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        add(fast, begun.id, "fast")
        fast.commit()
        slow.rollback()
        # what nobody has marked is not old for that
        assert chat.prune_sessions(fast, before=datetime.now(UTC) - timedelta(minutes=30)).sessions == 0


def test_who_adds_to_a_session_that_is_just_destroyed_is_told(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        begun = chat.create_session(session)
    told: list[Exception] = []
    started = threading.Event()

    def write() -> None:
        with Session(engine) as session:
            started.set()
            try:
                add(session, begun.id, "Hello?")
                session.commit()
            except Exception as exc:
                told.append(exc)

    writer = threading.Thread(target=write)
    with Session(engine) as session:
        chat.delete_session(session, begun.id, for_good=True)
        writer.start()
        started.wait(10)
        session.commit()
    writer.join(30)
    assert [type(each) for each in told] == [UnknownSession]


def test_a_citation_says_what_has_become_of_its_text(engine: sa.Engine) -> None:
    article = f"fares-{uuid4()}"
    with Session(engine) as session, session.begin():
        publish_texts(session, article, ["A ticket costs 20 euros.", "Children travel free."], title="Fares")
    with Session(engine) as session, session.begin():
        begun = chat.create_session(session)
        hits = find(session, article, "A ticket costs 20 euros.")
        said = add(session, begun.id, "20 euros [1].", role="assistant", citations=hits, cited=[1])
        ticket, children = chat.citation_status(session, said.id)
    assert (ticket.state, ticket.is_cited, ticket.quote) == ("current", True, "A ticket costs 20 euros.")
    assert ticket.content_hash == sha256(b"A ticket costs 20 euros.").digest()
    assert (ticket.title, ticket.article_id, ticket.ordinal) == ("Fares", article, 0)
    assert ticket.distance == pytest.approx(0, abs=1e-6)
    assert (children.is_cited, children.quote, children.title) == (False, None, "Fares")

    def after(change: Callable[[Session], object]) -> list[str]:
        with Session(engine) as session, session.begin():
            change(session)
        with Session(engine) as session:
            return states_of(session, said.id)

    dearer = ["A ticket costs 23 euros.", "Children travel free."]
    kept, current = CitationState.changed_version_kept, CitationState.current
    assert after(lambda s: publish_texts(s, article, dearer)) == [kept, current]
    # written the seed's way: each version has rows of its own
    assert after(lambda s: publish_texts(s, article, [*dearer, "New."], copy_unchanged=True)) == [
        kept,
        current,
    ]
    assert after(lambda s: activate_version(s, article, 1)) == [current, current]
    assert after(lambda s: retire_document(s, article)) == [kept, kept]
    assert after(lambda s: activate_version(s, article, 3)) == [kept, current]
    with Session(engine) as session:
        prune_versions(session, keep=0, article_ids=[article])
        assert states_of(session, said.id) == [CitationState.changed_version_pruned, current]
    assert after(lambda s: purge_document(s, article)) == [CitationState.purged] * 2
    with Session(engine) as session:
        assert chat.citation_status(session, said.id)[0].quote == "A ticket costs 20 euros."


def test_one_statement_says_what_has_become_of_all_citations(engine: sa.Engine) -> None:
    with Session(engine) as session:
        publish_texts(session, article := f"one-{uuid4()}", [f"text {number}" for number in range(12)])
        hits = session.execute(hybrid_search(embed("text 1"), "text", limit=12, article_ids=[article])).all()
        said = add(session, chat.create_session(session).id, "All.", citations=hits)
        asked: list[str] = []
        sa.event.listen(engine, "before_cursor_execute", listen := lambda *each: asked.append(each[2]))
        found = chat.citation_status(session, said.id)
        sa.event.remove(engine, "before_cursor_execute", listen)
    assert len(asked) == 1
    assert [each.number for each in found] == list(range(1, 13))
    assert [each.score for each in found] == [hit.score for hit in hits]
    assert {each.state for each in found} == {"current"}


def test_erasure_takes_what_was_quoted_and_says_who_may_repeat_it(session: Session) -> None:
    secret, other = f"secret-{uuid4()}", f"other-{uuid4()}"
    for article in (secret, other):
        publish_texts(session, article, [f"{article} says a name."], title="A name", url="https://a.name")
    of_secret, of_other = (find(session, article, article) for article in (secret, other))
    begun = chat.create_session(session)
    both = add(session, begun.id, "1", citations=[*of_secret, *of_other])
    retrieved = add(session, begun.id, "2", citations=of_secret, cited=[])
    alone = add(session, begun.id, "3", citations=of_other)
    document_id = of_secret[0].document_id
    purge_document(session, secret)
    for _ in range(2):
        assert chat.erase_citations(session, [document_id]) == sorted([both.id, retrieved.id])
    erased, kept = chat.citation_status(session, both.id)
    assert (erased.quote, erased.title, erased.url, erased.state) == (None, None, None, "purged")
    assert (erased.erased_at is not None, erased.content_hash) == (
        True,
        sha256(f"{secret} says a name.".encode()).digest(),
    )
    assert (kept.quote, kept.title, kept.erased_at) == (f"{other} says a name.", "A name", None)
    assert [each.quote for each in chat.citation_status(session, alone.id)] == [kept.quote]
    held = session.scalar(
        sa.text(
            "SELECT count(*) FROM rag_chat_citations c WHERE c::text LIKE '%says a name%' AND document_id = :id"
        ),
        {"id": document_id},
    )
    assert held == 0


def test_what_is_purged_while_its_answer_is_written_is_not_quoted(session: Session) -> None:
    """An erasure that was done would be undone by the answer that comes after it."""
    secret, other = f"secret-{uuid4()}", f"other-{uuid4()}"
    for article in (secret, other):
        publish_texts(session, article, [f"{article} says a name."], title="A name", url="https://a.name")
    hits = [*find(session, secret, secret), *find(session, other, other)]
    begun = chat.create_session(session)
    asked = add(session, begun.id, "Who?")
    assert purge_documents(session, [secret], erase=True).message_ids == ()
    said = add(session, begun.id, "Somebody.", role="assistant", parent_id=asked.id, citations=hits)
    again = chat.branch(session, said.id, NewMessage("assistant", "One."), citations=hits)
    for message in (said, again):
        gone, there = chat.citation_status(session, message.id)
        assert (gone.quote, gone.title, gone.url, gone.state) == (None, None, None, "purged")
        assert (gone.article_id, gone.is_cited) == (secret, True)
        assert gone.content_hash == sha256(f"{secret} says a name.".encode()).digest()
        assert (there.quote, there.title, there.state) == (f"{other} says a name.", "A name", "current")
    assert purge_documents(session, [secret], erase=True).message_ids == tuple(sorted([said.id, again.id]))


def test_offsets_are_kept_of_hits_that_have_them(session: Session) -> None:
    hit = {
        **dict.fromkeys(("chunk_id", "document_id", "version_id"), uuid4()),
        **{
            "article_id": "a",
            "content": "text",
            "version_number": 1,
            "ordinal": 0,
            "title": None,
            "url": None,
        },
    }
    begun = chat.create_session(session)
    said = add(session, begun.id, "x", citations=[hit | {"start_offset": 3, "end_offset": 7}, hit])
    found = chat.citation_status(session, said.id)
    assert [(each.start_offset, each.end_offset) for each in found] == [(3, 7), (None, None)]
    assert [each.state for each in found] == ["purged", "purged"]
    for wrong, words in (
        ({"content": None}, "Hit 1 has no content"),
        ({"ordinal": True}, "ordinal of hit 1 is True"),
        ({"title": "\0"}, "title of hit 1 holds a NUL"),
        ({"score": float("nan")}, "score of hit 1 is nan"),
        ({"version_id": "x"}, "version_id of hit 1 is str"),
    ):
        with pytest.raises(ChatError, match=words):
            add(session, begun.id, "x", citations=[hit | wrong])
    with pytest.raises(ChatError, match="cited is 2"):
        add(session, begun.id, "x", citations=[hit], cited=[2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NewMessage("user", "a\0b"), "content holds a NUL byte"),
        (lambda: NewMessage("user", "\ud800"), "half a surrogate pair"),
        (lambda: NewMessage(WRONG, "a"), "role is None"),
        (lambda: NewMessage("user", WRONG), "content is NoneType"),
        (lambda: NewMessage("user", "a", input_tokens=True), "input_tokens is True"),
        (lambda: NewMessage("user", "a", latency_ms=2**31), "latency_ms is 2147483648"),
        (lambda: NewMessage("user", "a", parts="ab"), "parts is one str, not several"),
        (lambda: NewMessage("user", "a", parts=(each for each in LIST)), "parts is generator"),  # type: ignore[arg-type]
        (lambda: NewMessage("user", "a", created_at=datetime(2026, 1, 1)), "created_at is"),
        (lambda: NewMessage("user", "a", metadata=LIST), "metadata is list"),
    ],
)
def test_what_cannot_be_kept_is_refused_where_it_is_said(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ChatError, match=words):
        make()


def test_what_cannot_be_kept_is_refused_before_it_is_sent(session: Session) -> None:
    begun = chat.create_session(session)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: chat.add_message(session, begun.id, WRONG), "not NewMessage"),
        (lambda: chat.add_message(session, WRONG, HELLO), "session_id is NoneType"),
        (lambda: add(session, begun.id, "x", parent_id=str(begun.id)), "parent_id is str"),
        (lambda: chat.add_message(session, begun.id, replace(HELLO, metadata={"a": "\0"})), "NUL character"),
        (lambda: chat.add_message(session, begun.id, replace(HELLO, parts=[float("nan")])), "cannot be JSON"),
        (lambda: chat.add_message(session, begun.id, replace(HELLO, parts=[{1: 1, "1": 2}])), "one in JSON"),
        (lambda: chat.create_session(session, "x" * 2001), "2,001 bytes"),
        (lambda: chat.create_session(session, title="\0"), "title holds a NUL"),
        (lambda: chat.sessions(session, "a", limit=0), "limit is 0"),
        (lambda: chat.sessions(session, "a", before=LIST), "before is list, not a cursor"),
        (lambda: chat.messages(session, begun.id, limit=True), "limit is True"),
        (lambda: chat.erase_citations(session, [WRONG]), r"document_ids\[0\] is NoneType"),
        (lambda: chat.give_feedback(session, begun.id, WRONG, 1), "feedback is somebody's"),
        (lambda: chat.give_feedback(session, begun.id, "a", True), "rating is True"),
        (lambda: chat.prune_sessions(session, before=datetime(2026, 1, 1)), "before is"),
    ]
    for call, words in calls:
        with pytest.raises(RagSchemaError, match=words):
            call()
    huge = chat.add_message(session, begun.id, NewMessage("user", "ä" * 3_000_000, parts=["x" * 1_000_000]))
    assert chat.message_path(session, huge.id) == [huge]


def test_a_user_has_one_word_on_a_message(session: Session) -> None:
    said = add(session, chat.create_session(session).id, "20 euros.")
    chat.give_feedback(session, said.id, "ann", 1)
    given = chat.give_feedback(session, said.id, "ann", -1, "It is 23.")
    bob = chat.give_feedback(session, said.id, "bob", 1)
    assert chat.list_feedback(session, said.id) == [given, bob]
    assert chat.withdraw_feedback(session, said.id, "bob")
    assert not chat.withdraw_feedback(session, said.id, "bob")
    with pytest.raises(UnknownMessage):
        chat.give_feedback(session, uuid4(), "ann", 1)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_code_has_the_same_functions(database: Database, driver: str) -> None:
    async def main() -> list[Any]:
        url = database.url() if driver == "psycopg" else over_asyncpg(database)
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: publish_texts(sync, "async", ["Cats purr."], title="Cats"))
            begun = await aio.chat.create_session(connection, "ann", metadata={"a": [1]})
            asked = await aio.chat.add_message(connection, begun.id, HELLO)
            hits = (
                await connection.execute(nearest_chunks(embed("Cats purr."), article_ids=["async"]))
            ).all()
            answer = NewMessage("assistant", "Purr.", parts=[{"type": "text"}], created_at=datetime.now(UTC))
            said = await aio.chat.add_message(
                connection, begun.id, answer, parent_id=asked.id, citations=hits
            )
            again = await aio.chat.branch(connection, said.id, answer)
            await aio.chat.give_feedback(connection, said.id, "ann", 1)
            page = await aio.chat.sessions(
                connection, "ann", before=chat.SessionCursor(datetime.now(UTC), UUID(int=0))
            )
            found = [
                await aio.chat.message_path(connection, said.id) == [asked, said],
                await aio.chat.messages(connection, begun.id, before=again.position) == [asked, said],
                [each.id for each in page if each.id == begun.id] == [begun.id],
                [(each.quote, each.state) for each in await aio.chat.citation_status(connection, said.id)],
                await aio.chat.erase_citations(connection, [hits[0].document_id]) == [said.id],
                (await aio.chat.prune_sessions(connection, before=datetime.now(UTC))).sessions > 0,
            ]
        await engine.dispose()
        return found

    assert asyncio.run(main()) == [True, True, True, [("Cats purr.", CitationState.current)], True, True]


def test_pruning_spares_what_is_continued_and_says_what_is_lost(
    database: Database, engine: sa.Engine, run: Command
) -> None:
    def begin(age: int) -> UUID:
        with Session(engine) as session, session.begin():
            begun = chat.create_session(session)
            written = datetime.now(UTC) - timedelta(days=age)
            for role in ("user", "assistant"):
                said = chat.add_message(session, begun.id, NewMessage(role, "x", created_at=written))
            chat.give_feedback(session, said.id, "ann", 1)
            session.execute(
                sa.text("UPDATE rag_chat_sessions SET updated_at = :written WHERE id = :id"),
                {"written": written, "id": begun.id},
            )
            return begun.id

    with connect(database) as connection:
        connection.execute("DELETE FROM rag_chat_sessions")
    old = [begin(100) for _ in range(3)]
    held, fresh = begin(100), begin(10)
    url = {"DATABASE_URL": database.libpq_url()}
    counted = run("rag", "chat", "prune", "--before", "90d", "--dry-run", "--json", **url)
    assert check("chat prune", counted.stdout) == {
        "is_dry_run": True,
        "before": json.loads(counted.stdout)["before"],
        "pruned": {"sessions": 4, "messages": 8, "citations": 0, "feedback": 4},
    }
    asked = run("rag", "chat", "prune", "--before", "90d", **url)
    assert (asked.returncode, "Add --yes" in asked.stderr) == (2, True)
    with Session(engine) as writer:
        add(writer, held, "I am not committed yet.")
        pruned = run("rag", "chat", "prune", "--before", "90d", "--batch", "2", "--yes", **url)
        assert pruned.stdout == "Destroyed 3 conversations with 6 messages, 0 citations and 3 ratings.\n"
        writer.commit()
    with Session(engine) as session:
        assert [chat.find_session(session, each) for each in old] == [None] * 3
        assert chat.count_messages(session, held) == 3
        assert chat.count_messages(session, fresh) == 2
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as one,
        pytest.raises(ChatError),
    ):
        chat.prune_sessions(one, before=datetime.now(UTC))
    older = run("rag", "chat", "prune", "--older-than", "90d", **url)
    assert "Write --before DURATION." in older.stderr


def test_every_foreign_key_of_a_conversation_has_an_index(database: Database) -> None:
    with connect(database) as connection:
        unread = rows(
            connection,
            """
            SELECT conname::text FROM pg_constraint c
            WHERE contype = 'f' AND conrelid::regclass::text LIKE 'rag_chat_%' AND NOT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indpred IS NULL
                AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
            )
            """,
        )
        assert rows(connection, "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'rag_chat%fkey'") == [
            4
        ]
    assert unread == []


def test_going_back_destroys_no_conversation_unless_told_so(
    database_at: Callable[[str], Database],
) -> None:
    database = database_at("20261128160030")
    engine = sa.create_engine(database.url())
    with Session(engine) as session, session.begin():
        said = add(session, chat.create_session(session).id, "x")
        chat.give_feedback(session, said.id, "ann", 1)
    engine.dispose()
    with pytest.raises(DataLossRefused):
        migrations.downgrade(database, "-4")
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM rag_chat_feedback") == [1]
    migrations.downgrade(database, "-4", allow_data_loss=True)
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM pg_class WHERE relname LIKE 'rag_chat%'") == [0]
