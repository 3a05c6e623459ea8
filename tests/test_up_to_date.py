"""What is up to date: one answer, whether a document is published alone or in bulk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from publishing import (
    NAMES,
    consistent_connection,
    embed,
    make_plan,
    publish_texts,
    publishing_database,
    read_current,
)
from ragschema.database.settings import Database
from ragschema.publishing import (
    BulkDocument,
    BulkLoad,
    PublishingError,
    activate_version,
    plan_version,
    prune_versions,
    publish,
    publish_many,
    purge_document,
    retire_document,
)

shared = publishing_database

Publish = Callable[[sa.Connection, BulkDocument], None]


connection = consistent_connection


def one_by_one(connection: sa.Connection, document: BulkDocument) -> None:
    plan = plan_version(
        connection,
        document.article_id,
        document.contents,
        source_hash=document.source_hash,
        chunker_version=document.chunker_version,
        embedder_version=document.embedder_version,
        title=document.title,
        url=document.url,
        metadata=document.metadata,
        source=document.source,
    )
    vectors = [None] * len(document.contents) if document.embeddings is None else document.embeddings
    publish(connection, plan, dict(zip(plan.contents, vectors, strict=True)))
    connection.commit()


def in_bulk(connection: sa.Connection, document: BulkDocument) -> None:
    publish_many(connection, [document])


def document(article_id: str, *contents: str, **changes: Any) -> BulkDocument:
    embeddings = np.array([embed(content) for content in contents])
    given = {"embeddings": embeddings, "source_hash": "h", "title": "Title", "url": "u", **NAMES, **changes}
    return BulkDocument(article_id, contents, **given)


def state(connection: sa.Connection, article_id: str) -> tuple[Any, ...]:
    """Return the number of versions, the title of the current one, and what search finds."""
    versions, title = connection.execute(
        sa.text(
            "SELECT (SELECT count(*) FROM rag_document_versions WHERE document_id = d.id), v.title"
            " FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id"
            " WHERE d.article_id = :article_id"
        ),
        {"article_id": article_id},
    ).one()
    found = [(row.content, row.embedding is not None) for row in read_current(connection, article_id)]
    connection.rollback()
    return versions, title, found


def retire(connection: sa.Connection, article_id: str) -> None:
    retire_document(connection, article_id)
    connection.commit()


def nothing(connection: sa.Connection, article_id: str) -> None:
    pass


@pytest.mark.parametrize(
    ("first", "between", "second", "versions", "title", "found"),
    [
        ({}, nothing, {}, 1, "Title", [("a", True), ("b", True)]),
        ({"embeddings": None}, nothing, {}, 1, "Title", [("a", True), ("b", True)]),
        ({}, nothing, {"embeddings": None}, 1, "Title", [("a", True), ("b", True)]),
        ({}, nothing, {"title": "Other"}, 2, "Other", [("a", True), ("b", True)]),
        ({}, nothing, {"url": None}, 2, "Title", [("a", True), ("b", True)]),
        ({}, retire, {}, 3, "Title", [("a", True), ("b", True)]),
        ({}, nothing, {"contents": ("b", "a")}, 2, "Title", [("a", True), ("b", True)]),
        ({}, nothing, {"contents": ("a", "c")}, 2, "Title", [("a", True), ("c", True)]),
    ],
    ids=[
        "the same",
        "embeddings second",
        "none second",
        "title",
        "url",
        "retired",
        "order",
        "text, same hash",
    ],
)
@pytest.mark.parametrize("write", [one_by_one, in_bulk])
def test_both_ways_write_the_same(
    connection: sa.Connection,
    write: Publish,
    first: dict[str, Any],
    between: Callable[[sa.Connection, str], None],
    second: dict[str, Any],
    versions: int,
    title: str,
    found: list[tuple[str, bool]],
) -> None:
    article = str(uuid4())
    write(connection, document(article, "a", "b", **first))
    between(connection, article)
    changes = {"contents": ("a", "b"), **second}
    write(connection, document(article, *changes.pop("contents"), **changes))
    assert state(connection, article) == (versions, title, found)


def test_a_load_says_what_it_did_with_each(connection: sa.Connection) -> None:
    new, same, waits, retitled = (str(uuid4()) for _ in range(4))
    publish_many(
        connection, [document(same, "a"), document(waits, "b", embeddings=None), document(retitled, "c")]
    )
    load = publish_many(
        connection,
        [document(new, "n"), document(same, "a"), document(waits, "b"), document(retitled, "c", title="T")],
    )
    assert load == BulkLoad(added=1, changed=1, skipped=1, embedded=1, chunks=2)


def test_embeddings_that_come_second_fill_in_without_a_version(connection: sa.Connection) -> None:
    article = str(uuid4())
    with Session(connection) as session:
        publish(session, make_plan(session, article, ["a", "b"]), [None, embed("b")])
        plan = make_plan(session, article, ["a", "b"])
        assert (plan.is_up_to_date, plan.texts_to_embed) == (True, ())
        asked = make_plan(session, article, ["a", "b"], include_pending=True)
        assert asked.texts_to_embed == ("a",)
        version = publish(session, asked, [embed("a")])
        assert (version.is_new, version.embedded) == (False, 1)
        assert [row.embedding is None for row in read_current(session, article)] == [False, False]
        again = publish(session, make_plan(session, article, ["a", "b"]), {"a": embed("z")})
        assert again.embedded == 0
        session.commit()


@pytest.mark.parametrize(
    "act",
    [
        lambda connection, article: publish(connection, make_plan(connection, article, ["c"]), [embed("c")]),
        lambda connection, article: activate_version(connection, article, 1),
        lambda connection, article: retire_document(connection, article),
        lambda connection, article: purge_document(connection, article),
        lambda connection, article: prune_versions(connection, keep=1),
        lambda connection, article: publish_many(connection, [document(article, "a")]),
    ],
    ids=["publish", "activate", "retire", "purge", "prune", "publish_many"],
)
def test_autocommit_is_refused(
    connection: sa.Connection, shared: Database, act: Callable[[sa.Connection, str], object]
) -> None:
    article = str(uuid4())
    publish_texts(connection, article, ["a", "b"])
    connection.commit()
    before = state(connection, article)
    engine = sa.create_engine(shared.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as autocommit, pytest.raises(PublishingError, match="autocommit mode"):
        act(autocommit, article)
    engine.dispose()
    assert state(connection, article) == before
