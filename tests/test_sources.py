"""What the source of a version was, its metadata, and where in it each chunk stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from publishing import NAMES, consistent_connection, embed, over_asyncpg, publishing_database, read_current
from ragschema import (
    BulkDocument,
    ChunkText,
    ContentError,
    Source,
    UnknownDocument,
    activate_version,
    aio,
    hybrid_search,
    ingest,
    ingest_many,
    nearest_chunks,
    plan_version,
    publish,
    publish_many,
    retire_document,
    set_metadata,
    version_chunks,
    version_diff,
)
from ragschema.database.settings import Database
from ragschema.publishing.sources import METADATA_BYTES

shared = publishing_database
connection = consistent_connection

Publish = Callable[[sa.Connection, BulkDocument], None]

H: dict[str, Any] = {"source_hash": "h", **NAMES}
PDF = Source("terms.pdf", "application/pdf", 12_345_678_901, "sha256:ab", "nl")


def document(article_id: str, *contents: str | ChunkText, **changes: Any) -> BulkDocument:
    texts = [each.content if isinstance(each, ChunkText) else each for each in contents]
    given = {"embeddings": np.array([embed(text) for text in texts]), "source_hash": "h", **NAMES, **changes}
    return BulkDocument(article_id, contents, **given)


def one_by_one(connection: sa.Connection, document: BulkDocument) -> None:
    plan = plan_version(
        connection,
        document.article_id,
        document.contents,
        source_hash=document.source_hash,
        chunker_version=document.chunker_version,
        embedder_version=document.embedder_version,
        metadata=document.metadata,
        source=document.source,
    )
    publish(connection, plan, [embed(text) for text in plan.texts_to_embed])
    connection.commit()


def in_bulk(connection: sa.Connection, document: BulkDocument) -> None:
    publish_many(connection, [document])


def ingested(connection: sa.Connection, document: BulkDocument) -> None:
    given = {name: getattr(document, name) for name in (*NAMES, "source_hash", "metadata", "source")}
    ingest(sessions(connection), document.article_id, document.contents, embed_all, **given)


def ingested_with_others(connection: sa.Connection, document: BulkDocument) -> None:
    done = ingest_many(sessions(connection), [document], embed_all)
    assert done.failures == ()


def sessions(connection: sa.Connection) -> sessionmaker[Session]:
    return sessionmaker(connection.engine)


def embed_all(texts: list[str]) -> list[Any]:
    return [embed(text) for text in texts]


def embed_nothing(texts: list[str]) -> list[Any]:
    raise AssertionError(texts)


def rows(connection: sa.Connection, article_id: str) -> list[sa.Row[Any]]:
    """Return every place of every version, the newest first, with all that is said of them."""
    found = connection.execute(
        sa.text(
            "SELECT v.version_number, v.metadata, v.file_name, v.mime_type, v.byte_size, v.content_hash, v.language,"
            " e.ordinal, c.content, e.start_offset, e.end_offset, e.metadata AS details, c.token_count, c.id"
            " FROM rag_documents d JOIN rag_document_versions v ON v.document_id = d.id"
            " LEFT JOIN rag_chunk_events e ON e.version_id = v.id AND e.event_type <> 'deleted'"
            " LEFT JOIN rag_chunks c ON c.id = e.chunk_id"
            " WHERE d.article_id = :article_id ORDER BY v.version_number DESC, e.ordinal"
        ),
        {"article_id": article_id},
    ).all()
    connection.rollback()
    return list(found)


def versions(connection: sa.Connection, article_id: str) -> int:
    return int(rows(connection, article_id)[0].version_number)


def newest(connection: sa.Connection, article_id: str) -> list[sa.Row[Any]]:
    found = rows(connection, article_id)
    return [row for row in found if row.version_number == found[0].version_number]


WAYS = pytest.mark.parametrize("write", [one_by_one, in_bulk, ingested, ingested_with_others])


@WAYS
def test_each_way_of_publishing_stores_the_same(
    connection: sa.Connection, article: str, write: Publish
) -> None:
    """A first version, and one after it."""
    details = {"page": 3, "headings": ["Größe", "a\\u0000b"]}
    first: list[str | ChunkText] = [ChunkText("a", 0, 1, details, token_count=2), "b", ChunkText("c", 5, 5)]
    metadata = {"team": "legal", "tags": ["x", {"y": None}], "n": 10**30, "on": True}
    write(connection, document(article, *first, metadata=metadata, source=PDF))
    described: tuple[Any, ...] = (metadata, "terms.pdf", "application/pdf", 12_345_678_901, "sha256:ab", "nl")
    assert [tuple(row[:-1]) for row in rows(connection, article)] == [
        (1, *described, 0, "a", 0, 1, details, 2),
        (1, *described, 1, "b", None, None, None, None),
        (1, *described, 2, "c", 5, 5, None, None),
    ]
    second = [
        ChunkText("new", 0, 4, {}, 1),
        ChunkText("a", 7, 8, token_count=9),
        ChunkText("b", 8, 9, token_count=7),
    ]
    write(connection, document(article, *second, metadata={}, source=Source(language="pt-BR")))
    described = ({}, None, None, None, None, "pt-BR")
    assert [tuple(row[:-1]) for row in newest(connection, article)] == [
        (2, *described, 0, "new", 0, 4, {}, 1),
        (2, *described, 1, "a", 7, 8, None, 2),  # keeps the count it has
        (2, *described, 2, "b", 8, 9, None, 7),  # had none
    ]


SAID: dict[str, Any] = {
    "contents": (
        ChunkText("a", 0, 1, {"page": 1, "x": [1, True, 1e16]}, token_count=1),
        ChunkText("b", 1, 2),
    ),
    "metadata": {"a": 1, "b": [True, 0.5, "x"], "c": {"d": None}},
    "source": PDF,
}
THE_SAME: dict[str, dict[str, Any]] = {
    "all of it": {},
    "numbers written otherwise": {
        "metadata": {"c": {"d": None}, "b": [True, 0.50, "x"], "a": 1.0},
        "contents": (ChunkText("a", 0, 1, {"x": [1.0, True, 10**16], "page": 1}), ChunkText("b", 1, 2)),
    },
    "nothing of the place": {"contents": ("a", "b")},
    "the offsets alone": {"contents": (ChunkText("a", 0, 1), "b")},
    "the details alone": {"contents": (ChunkText("a", details=SAID["contents"][0].details), "b")},
    "nothing of metadata and source": {"metadata": None, "source": None},
    "another token count": {"contents": (ChunkText("a", token_count=5), ChunkText("b", token_count=5))},
}
ANOTHER: dict[str, dict[str, Any]] = {
    "a key of metadata": {"metadata": {**SAID["metadata"], "e": 1}},
    "no metadata": {"metadata": {}},
    "true for 1": {"metadata": {**SAID["metadata"], "a": True}},
    "file name": {"source": Source("other.pdf", *[getattr(PDF, n) for n in ("mime_type", "byte_size")])},
    "content hash": {"source": Source(PDF.file_name, PDF.mime_type, PDF.byte_size, "sha256:cd", "nl")},
    "no source": {"source": Source()},
    "offsets": {"contents": (ChunkText("a", 1, 2), "b")},
    "page": {"contents": ("a", ChunkText("b", details={"page": 2}))},
    "1 for true in details": {"contents": (ChunkText("a", details={"page": 1, "x": [1, 1, 1e16]}), "b")},
}


@pytest.mark.parametrize("changes", THE_SAME.values(), ids=THE_SAME)
@pytest.mark.parametrize("write", [one_by_one, in_bulk])
def test_who_says_the_same_or_less_writes_no_version(
    connection: sa.Connection, article: str, write: Publish, changes: dict[str, Any]
) -> None:
    write(connection, document(article, *SAID["contents"], metadata=SAID["metadata"], source=PDF))
    before = rows(connection, article)
    again = SAID | changes
    write(connection, document(article, *again.pop("contents"), **again))
    assert rows(connection, article) == before


@pytest.mark.parametrize("changes", ANOTHER.values(), ids=ANOTHER)
@pytest.mark.parametrize("write", [one_by_one, in_bulk])
def test_a_difference_makes_a_version_that_embeds_nothing_and_keeps_the_chunks(
    connection: sa.Connection, article: str, write: Publish, changes: dict[str, Any]
) -> None:
    write(connection, document(article, *SAID["contents"], metadata=SAID["metadata"], source=PDF))
    before = [row.id for row in read_current(connection, article)]
    again = SAID | changes
    contents = again.pop("contents")
    given = {name: again[name] for name in ("metadata", "source")}
    plan = plan_version(connection, article, contents, **H, **given)
    assert (plan.is_up_to_date, plan.texts_to_embed) == (False, ())
    connection.rollback()
    write(connection, document(article, *contents, **again, embeddings=None))
    assert [row.id for row in read_current(connection, article)] == before
    assert versions(connection, article) == 2
    write(connection, document(article, *contents, **again, embeddings=None))
    assert versions(connection, article) == 2


def test_what_is_not_said_of_the_next_version(connection: sa.Connection, article: str) -> None:
    """Metadata stays, the source while the text is the same, and where a chunk stands is unknown."""
    one_by_one(connection, document(article, *SAID["contents"], metadata={"a": 1}, source=PDF))
    one_by_one(connection, document(article, "a", "b", chunker_version="c2"))
    one_by_one(connection, document(article, "a", source_hash="h2"))
    retire_document(connection, article)
    connection.commit()
    in_bulk(connection, document(article, "b", source_hash="h2"))
    described = {
        row.version_number: (row.metadata, row.file_name, row.byte_size) for row in rows(connection, article)
    }
    assert described == {
        5: ({"a": 1}, None, None),
        4: ({"a": 1}, None, None),
        3: ({"a": 1}, None, None),
        2: ({"a": 1}, "terms.pdf", PDF.byte_size),
        1: ({"a": 1}, "terms.pdf", PDF.byte_size),
    }
    assert [row.start_offset for row in rows(connection, article) if row.version_number == 2] == [None, None]


def test_a_chunk_that_versions_share_stands_elsewhere_in_each(
    connection: sa.Connection, article: str
) -> None:
    one_by_one(connection, document(article, ChunkText("a", 0, 1, {"page": 1}), ChunkText("b", 2, 3)))
    one_by_one(
        connection,
        document(article, ChunkText("x", 0, 9), ChunkText("a", 10, 11, {"page": 2}), source_hash="h2"),
    )
    [old, new] = connection.scalars(
        sa.text(
            "SELECT v.id FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id"
            " WHERE d.article_id = :article ORDER BY version_number"
        ),
        {"article": article},
    )
    chunks = [connection.execute(version_chunks(version)).all() for version in (old, new)]
    assert chunks[0][0].chunk_id == chunks[1][1].chunk_id
    assert [tuple(row[2:]) for row in chunks[0]] == [("a", 0, 1, {"page": 1}), ("b", 2, 3, None)]
    assert [tuple(row[2:]) for row in chunks[1]] == [("x", 0, 9, None), ("a", 10, 11, {"page": 2})]
    searches: Sequence[Any] = (
        nearest_chunks(embed("a"), limit=1, article_ids=[article]),
        hybrid_search(embedding=embed("a"), text="a", limit=1, article_ids=[article]),
    )
    for search in searches:
        assert connection.execute(search).one()[-3:] == (10, 11, {"page": 2})
    differences = [(row.change, *row[-4:]) for row in connection.execute(version_diff(old, new))]
    assert differences == [
        ("added", None, 0, None, 9),
        ("deleted", 2, None, 3, None),
        ("unchanged", 0, 10, 1, 11),
    ]
    activate_version(connection, article, 1)
    for search in searches:
        assert connection.execute(search).one()[-3:] == (0, 1, {"page": 1})
    connection.rollback()


def test_copies_of_chunks_have_their_token_counts(connection: sa.Connection, article: str) -> None:
    one_by_one(connection, document(article, ChunkText("a", 0, 1, token_count=3), "b"))
    plan = plan_version(connection, article, ["a", "a", "b"], **H | {"source_hash": "h2"})
    publish(connection, plan, copy_unchanged=True)
    connection.commit()
    assert [row.token_count for row in newest(connection, article)] == [3, 3, None]
    assert len({row.id for row in rows(connection, article)}) == 5


def test_metadata_is_set_without_a_version(connection: sa.Connection, article: str) -> None:
    one_by_one(connection, document(article, "a", metadata={"a": 1, "b": {"c": 1}}, source=PDF))
    one_by_one(connection, document(article, "a", metadata={"a": 2}))
    before = rows(connection, article)
    merged = set_metadata(connection, article, {"b": [1]}, merge=True)
    assert (merged.version_number, merged.metadata) == (2, {"a": 2, "b": [1]})
    old = set_metadata(connection, article, {"old": True}, version_number=1)
    assert (old.version_number, old.metadata) == (1, {"old": True})
    connection.commit()
    assert [(row.metadata, *row[2:]) for row in rows(connection, article)] == [
        ({"a": 2, "b": [1]}, *before[0][2:]),
        ({"old": True}, *before[1][2:]),
    ]
    one_by_one(connection, document(article, "a", metadata={"b": [1], "a": 2}))
    assert versions(connection, article) == 2
    assert set_metadata(connection, article, {}).metadata == {}
    connection.rollback()
    with pytest.raises(UnknownDocument, match="has no version 7"):
        set_metadata(connection, article, {}, version_number=7)
    connection.rollback()
    with pytest.raises(UnknownDocument, match="no document"):
        set_metadata(connection, str(uuid4()), {})
    connection.rollback()


def test_async_code_says_it_likewise(shared: Database, article: str) -> None:
    async def run() -> tuple[Any, Any]:
        engine = create_async_engine(over_asyncpg(shared))
        try:
            async with engine.begin() as connection:
                plan = await aio.plan_version(
                    connection,
                    article,
                    [ChunkText("a", 0, 1, {"p": 1}, 4)],
                    **H,
                    **given,
                )
                await aio.publish(connection, plan, [embed("a")])
                again = await aio.plan_version(
                    connection,
                    article,
                    [ChunkText("a", 0, 1, {"p": 1}, 4)],
                    **H,
                    **given,
                )
                assert again.is_up_to_date
                found = (await connection.execute(version_chunks(again.base_version_id))).one()  # type: ignore[arg-type]
                return found, await aio.set_metadata(connection, article, {"b": 2}, merge=True)
        finally:
            await engine.dispose()

    given: dict[str, Any] = {"metadata": {"a": 1}, "source": PDF}
    found, described = asyncio.run(run())
    assert tuple(found[2:]) == ("a", 0, 1, {"p": 1})
    assert described.metadata == {"a": 1, "b": 2}


@pytest.mark.parametrize("is_alone", [True, False])
def test_contents_that_can_be_read_once_are_whole_in_every_attempt(
    connection: sa.Connection, article: str, is_alone: bool
) -> None:
    """Somebody else publishes while the first attempt embeds, so that the document is planned again."""

    def embed_meanwhile(texts: list[str]) -> list[Any]:
        if not rows(connection, article):
            one_by_one(connection, document(article, "theirs"))
        return embed_all(texts)

    contents: Any = (ChunkText(text, place, place + 1) for place, text in enumerate("ab"))
    given = H | {"source_hash": "ours"}
    if is_alone:
        ingest(sessions(connection), article, contents, embed_meanwhile, **given)
    else:
        ingest_many(sessions(connection), [BulkDocument(article, contents, None, **given)], embed_meanwhile)
    found = [(row.version_number, row.content, row.start_offset) for row in rows(connection, article)]
    assert found == [(2, "a", 0), (2, "b", 1), (1, "theirs", None)]


DEEP: list[Any] = []
NO_DICT: Any = [1]
DEEP.append(DEEP)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "start below 0": ({"contents": [ChunkText("a", -1, 2)]}, "The start of chunk 0 of article 'x' is -1"),
    "end before start": ({"contents": ["a", ChunkText("b", 3, 2)]}, "The end of chunk 1 of article 'x' is 2"),
    "no end": ({"contents": [ChunkText("a", 3)]}, "The end of chunk 0 of article 'x' is missing"),
    "no start": ({"contents": [ChunkText("a", end=3)]}, "The start of chunk 0 of article 'x' is missing"),
    "offset too large": ({"contents": [ChunkText("a", 0, 2**31)]}, "The end of chunk 0"),
    "half an offset": ({"contents": [ChunkText("a", 0.5, 1)]}, "The start of chunk 0"),  # type: ignore[arg-type]
    "a truth for an offset": ({"contents": [ChunkText("a", False, True)]}, "The start of chunk 0"),
    "token count below 0": ({"contents": [ChunkText("a", token_count=-1)]}, "The token_count of chunk 0"),
    "no text": ({"contents": [ChunkText(None)]}, "The text of chunk 0"),  # type: ignore[arg-type]
    "one chunk": ({"contents": ChunkText("a")}, "is one ChunkText, not several"),
    "one text": ({"contents": "text"}, "is one str, not several"),
    "details no dict": (
        {"contents": [ChunkText("a", details=NO_DICT)]},
        "details of chunk 0 of article 'x' is list",
    ),
    "NUL in details": ({"contents": [ChunkText("a", details={"a": "\0"})]}, "has a NUL character"),
    "metadata no dict": ({"metadata": '{"a": 1}'}, "The metadata of article 'x' is str, not a dict"),
    "NaN": ({"metadata": {"a": [float("nan")]}}, "cannot be JSON"),
    "infinity": ({"metadata": {"a": float("inf")}}, "cannot be JSON"),
    "a value of a library": ({"metadata": {"a": uuid4()}}, "cannot be JSON"),
    "a set": ({"metadata": {"a": {1}}}, "cannot be JSON"),
    "a number for a key": ({"metadata": {"a": [{1: 2}]}}, r"has the key 1 at \$.a\[0\], which is int"),
    "None for a key": ({"metadata": {None: 2}}, r"has the key None at \$, which is NoneType"),
    "NUL in a text": ({"metadata": {"a": "b\0"}}, "has a NUL character"),
    "NUL in a key": ({"metadata": {"a\0": 1}}, "has a NUL character"),
    "half a character": ({"metadata": {"a": "\ud800"}}, "cannot be JSON"),
    "too long": (
        {"metadata": {"a": "ö" * (METADATA_BYTES // 2)}},
        "has 262,153 bytes as JSON; 262,144 are allowed",
    ),
    "itself inside": ({"metadata": {"a": DEEP}}, "nested more than 100 levels deep"),
    "source no Source": ({"source": {"file_name": "a"}}, "The source of article 'x' is dict, not Source"),
    "file name no text": ({"source": Source(b"a")}, "The file_name of article 'x' is bytes"),  # type: ignore[arg-type]
    "NUL in a name": ({"source": Source("a\0")}, "The file_name of article 'x' holds a NUL byte"),
    "size below 0": ({"source": Source(byte_size=-1)}, "The byte_size of article 'x' is -1"),
    "size too large": ({"source": Source(byte_size=2**63)}, "The byte_size of article 'x'"),
    "size a text": ({"source": Source(byte_size="1")}, "The byte_size of article 'x' is '1'"),  # type: ignore[arg-type]
    "language no tag": ({"source": Source(language="pt_BR")}, "which is no language tag"),
    "language empty": ({"source": Source(language="")}, "which is no language tag"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stored_is_refused_before_anything_is_embedded(
    connection: sa.Connection, changes: dict[str, Any], message: str
) -> None:
    given = {"contents": ["a"], "source_hash": "h", **NAMES, **changes}
    contents = given.pop("contents")
    with pytest.raises(ContentError, match=message):
        ingest(sessions(connection), "x", contents, embed_nothing, **given)
    bulk = BulkDocument("x", contents, None, **given)
    loaded = publish_many(connection, [bulk], on_error="skip")
    embedded = ingest_many(sessions(connection), [bulk], embed_nothing, on_error="skip")
    assert [str(each.error) for each in loaded.failures] == [str(each.error) for each in embedded.failures]
    assert len(loaded.failures) == 1
    if "metadata" in changes:
        with pytest.raises(ContentError, match=message):
            set_metadata(connection, "x", changes["metadata"])
    assert rows(connection, "x") == []


def test_what_cannot_be_stored_is_what_the_database_would_refuse(
    connection: sa.Connection, article: str
) -> None:
    """The longest, largest and strangest that is let through is stored, by both ways."""
    most: dict[str, Any] = {"": "ö" * ((METADATA_BYTES - 8) // 2)}
    deep: Any = "leaf"
    for _ in range(98):
        deep = [deep]
    odd = {"\\u0000": "\\\\u0000 \U0001f600", "n": 1e-300, "i": 10**4000, "deep": deep}
    for write, details, metadata in ((one_by_one, odd, most), (in_bulk, most, odd)):
        name = f"{article}-{write.__name__}"
        chunk = ChunkText("a", np.int64(0), 2**31 - 1, details, 2**31 - 1)  # type: ignore[arg-type]
        source = Source("", "", 2**63 - 1, "", "x-klingon")
        for _ in range(2):
            write(connection, document(name, chunk, metadata=metadata, source=source))
        [row] = rows(connection, name)
        assert (row.metadata, row.details, row.end_offset) == (metadata, details, 2**31 - 1)
