"""Steps of conversations: begun, continued with citations, deleted, pruned; what becomes of what they cite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st

from model_of_steps import Model, State
from ragschema import chat
from ragschema.chat import CitationState, NewMessage, UnknownSession
from random_steps import Step, World, articles, numbers, pick

LATE = datetime(9999, 1, 1, tzinfo=UTC)
_CHECKED = 6  # messages whose citations are looked at after each step


@dataclass(frozen=True)
class Cited:
    """What a message cites."""

    article: str
    document: UUID
    version: UUID
    content: str
    is_cited: bool
    is_erased: bool = False

    def state(self, corpus: State) -> CitationState:
        """Return what has become of it, by definition."""
        row = corpus.documents.get(self.document)
        if row is None:
            return CitationState.purged
        if row.is_deleted:
            return CitationState.deleted
        if row.current is not None and self.content in corpus.contents(row.current):
            return CitationState.current
        if self.version in corpus.versions:
            return CitationState.changed_version_kept
        return CitationState.changed_version_pruned


@dataclass(frozen=True)
class Message:
    """A message, its parent, and what it cites in order."""

    id: UUID
    parent: UUID | None
    cited: tuple[Cited, ...] = ()


@dataclass
class Session:
    """A conversation, and its messages in order."""

    id: UUID
    is_deleted: bool = False
    messages: list[Message] = field(default_factory=list)


@dataclass
class Chat:
    """The conversations there are."""

    sessions: list[Session] = field(default_factory=list)

    def copy(self) -> Chat:
        return Chat([Session(each.id, each.is_deleted, [*each.messages]) for each in self.sessions])

    def forget(self, ids: Mapping[str, UUID | None], *, is_erased: bool) -> None:
        """Take what was quoted of purged documents out of all messages, where that was asked for."""
        if not is_erased:
            return
        for session in self.sessions:
            session.messages = [
                replace(
                    message,
                    cited=tuple(
                        replace(each, is_erased=True)
                        if each.article in ids or each.document in ids.values()
                        else each
                        for each in message.cited
                    ),
                )
                for message in session.messages
            ]

    def check(self, connection: sa.Connection, model: Model) -> None:
        expected = {
            message.id: (session.id, message.parent)
            for session in self.sessions
            for message in session.messages
        }
        found = {row.id: (row.session_id, row.parent_id) for row in connection.execute(_MESSAGES)}
        assert found == expected
        deleted = {row.id: row.is_deleted for row in connection.execute(_SESSIONS)}
        assert deleted == {each.id: each.is_deleted for each in self.sessions}
        citing = [each for session in self.sessions for each in session.messages if each.cited]
        for message in citing[-_CHECKED:]:
            said = [
                (each.state, each.quote, each.erased_at is not None)
                for each in chat.citation_status(connection, message.id)
            ]
            assert said == [
                (
                    each.state(model.corpus),
                    each.content if each.is_cited and not each.is_erased else None,
                    each.is_erased,
                )
                for each in message.cited
            ]


def _of(world: World) -> Chat:
    found = world.model.families["chat"]
    assert isinstance(found, Chat)
    return found


@dataclass(frozen=True)
class Begin(Step):
    """A conversation is begun."""

    user: str | None

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Begin]:
        return st.builds(cls, st.sampled_from([None, "ann", "bob"]))

    def run(self, world: World) -> None:
        _of(world).sessions.append(Session(chat.create_session(world.connection, self.user).id))
        world.did(self)


@dataclass(frozen=True)
class Say(Step):
    """A message is added, with the chunks of a document that were found for it; the odd ones are cited."""

    session: int
    article: str
    hits: int

    weight = 10

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Say]:
        return st.builds(cls, numbers, articles, st.integers(0, 3))

    def needs(self, world: World) -> Begin | None:
        return None if _of(world).sessions else Begin(None)

    def run(self, world: World) -> None:
        session = pick(_of(world).sessions, self.session)
        if session is None:
            return
        new = NewMessage("assistant", "An answer")
        if session.is_deleted:
            with pytest.raises(UnknownSession):
                chat.add_message(world.connection, session.id, new)
            world.did(self, is_refused=True)
            return
        hits, cited = self._hits(world)
        added = chat.add_message(
            world.connection, session.id, new, citations=hits, cited=range(1, len(hits) + 1, 2)
        )
        last = session.messages[-1].id if session.messages else None
        assert added.parent_id == last
        session.messages.append(Message(added.id, last, cited))
        world.did(self)

    def _hits(self, world: World) -> tuple[list[dict[str, object]], tuple[Cited, ...]]:
        corpus = world.corpus
        document = corpus.find(self.article)
        row = corpus.documents[document] if document else None
        if row is None or document is None or row.is_deleted or row.current not in corpus.versions:
            return [], ()
        hits: list[dict[str, object]] = []
        cited = []
        for ordinal, chunk in enumerate(corpus.manifest(row.current)[: self.hits]):
            content = corpus.chunks[chunk].content
            hits.append(
                {
                    "document_id": document,
                    "version_id": row.current,
                    "chunk_id": chunk,
                    "article_id": self.article,
                    "content": content,
                    "version_number": corpus.versions[row.current].number,
                    "ordinal": ordinal,
                }
            )
            cited.append(Cited(self.article, document, row.current, content, ordinal % 2 == 0))
        return hits, tuple(cited)


@dataclass(frozen=True)
class Branch(Step):
    """A message is written again, beside another one."""

    session: int
    message: int

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Branch]:
        return st.builds(cls, numbers, numbers)

    def needs(self, world: World) -> Say | None:
        session = pick(_of(world).sessions, self.session)
        return None if session and (session.messages or session.is_deleted) else Say(self.session, "a", 1)

    def run(self, world: World) -> None:
        session = pick(_of(world).sessions, self.session)
        message = pick(session.messages, self.message) if session else None
        if message is None:
            return
        new = NewMessage("user", "Asked otherwise")
        if session.is_deleted:
            with pytest.raises(UnknownSession):
                chat.branch(world.connection, message.id, new)
            world.did(self, is_refused=True)
            return
        added = chat.branch(world.connection, message.id, new)
        session.messages.append(Message(added.id, message.parent))
        world.did(self)


@dataclass(frozen=True)
class EndSession(Step):
    """A conversation is deleted, for good or not, or brought back."""

    session: int
    how: str

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[EndSession]:
        return st.builds(cls, numbers, st.sampled_from(["delete", "delete", "restore", "for good"]))

    def needs(self, world: World) -> Begin | None:
        return None if _of(world).sessions else Begin(None)

    def run(self, world: World) -> None:
        sessions = _of(world).sessions
        session = pick(sessions, self.session)
        if session is None:
            return
        if self.how == "restore":
            assert chat.restore_session(world.connection, session.id) == session.is_deleted
            session.is_deleted = False
        elif self.how == "delete":
            assert chat.delete_session(world.connection, session.id) != session.is_deleted
            session.is_deleted = True
        else:
            assert chat.delete_session(world.connection, session.id, for_good=True)
            sessions.remove(session)
        world.did(self)


@dataclass(frozen=True)
class PruneSessions(Step):
    """The conversations that nobody has continued since a time are destroyed: none, or all."""

    is_late: bool

    weight = 3

    @classmethod
    def drawn(cls) -> st.SearchStrategy[PruneSessions]:
        return st.builds(cls, st.booleans())

    def run(self, world: World) -> None:
        before = LATE if self.is_late else datetime(2000, 1, 1, tzinfo=UTC)
        gone = chat.prune_sessions(world.connection, before=before)
        sessions = _of(world).sessions
        assert gone.sessions == (len(sessions) if self.is_late else 0)
        if self.is_late:
            assert gone.messages == sum(len(each.messages) for each in sessions)
            sessions.clear()
        world.did(self)


STEPS: tuple[type[Step], ...] = (Begin, Say, Branch, EndSession, PruneSessions)

_MESSAGES = sa.text("""
SELECT m.id, m.session_id, p.id AS parent_id FROM rag_chat_messages m
LEFT JOIN rag_chat_messages p ON p.session_id = m.session_id AND p.position = m.parent_position
""")
_SESSIONS = sa.text("SELECT id, deleted_at IS NOT NULL AS is_deleted FROM rag_chat_sessions")
