"""Memberships of documents in collections, written by the article for any number of documents at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import sqlalchemy as sa

from ragschema.errors import RagSchemaError, UnknownCollection
from ragschema.publishing.errors import ContentError, StalePlan
from ragschema.publishing.transactions import connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.schema.base import Executor
from ragschema.values import several


@dataclass(frozen=True)
class Joined:
    """What became of documents that were to join collections.

    Attributes:
        added: Memberships that are new; the others were there.
        unknown: The articles of which there is no document, in order.
    """

    added: int
    unknown: tuple[str, ...]


def checked_collections(
    collection_ids: Sequence[UUID], error: type[RagSchemaError] = ContentError
) -> tuple[UUID, ...]:
    """Return the ids of collections, each once and in order: the first one's text configuration counts.

    Raises:
        error: They are one value, or have no order, or one is no UUID.
    """
    return tuple(dict.fromkeys(several("collection_ids", collection_ids, error, each=UUID, is_ordered=True)))


def read_text_configs(session: Executor, collection_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Return the text configuration of each collection; asks nothing where there is none.

    Raises:
        UnknownCollection: One is not there.
    """
    asked = list(dict.fromkeys(collection_ids))
    if not asked:
        return {}
    rows = connection_of(session).execute(_CONFIGS, {"collection_ids": asked})
    found = {row.id: row.text_config for row in rows}
    refuse_unknown(asked, found)
    return found


def settle_text_configs(session: Executor, plans: Sequence[VersionPlan]) -> list[VersionPlan]:
    """Return plans with the text configurations of their collections, which documents have that do not exist yet.

    Raises:
        UnknownCollection: A collection of theirs is not there.
    """
    configs = read_text_configs(session, [id_ for plan in plans for id_ in plan.collection_ids])
    return [
        plan
        if plan.text_config is not None or not plan.collection_ids
        else replace(plan, text_config=configs[plan.collection_ids[0]])
        for plan in plans
    ]


def join_collections(session: Executor, pairs: Sequence[tuple[UUID, str]]) -> Joined:
    """Let documents be in collections, in one statement; those that are stay as they are.

    Locks the collections against deletion, and the documents against whoever writes them, until the transaction ends.

    Args:
        session: A session or connection.
        pairs: A collection, and the article of a document.

    Raises:
        UnknownCollection: A collection is not there. Nothing was written.
    """
    if not pairs:
        return Joined(0, ())
    collection_ids, article_ids = (list(each) for each in zip(*pairs, strict=True))
    parameters = {"collection_ids": collection_ids, "article_ids": article_ids}
    row = connection_of(session).execute(_JOIN, parameters).one()
    refuse_unknown(collection_ids, row.known)
    return Joined(row.added, tuple(row.unknown))


def join_planned(session: Executor, plan: VersionPlan) -> None:
    """Let a plan's document be in the collections that it names.

    Raises:
        StalePlan: One was deleted since. Nothing was written.
    """
    try:
        join_collections(session, [(each, plan.article_id) for each in plan.collection_ids])
    except UnknownCollection as exc:
        raise StalePlan(
            f"Article {plan.article_id!r} is planned for a collection that was deleted since.",
            "Roll back, call plan_version again, without that collection.",
            exc.message,
        ) from exc


def refuse_unknown(asked: Iterable[UUID], known: Iterable[UUID]) -> None:
    """Refuse ids that no collection has.

    Raises:
        UnknownCollection: There is one.
    """
    found = {*known}
    if missing := [str(each) for each in dict.fromkeys(asked) if each not in found]:
        raise unknown_collection(", ".join(missing))


def unknown_collection(named: str) -> UnknownCollection:
    """Return the error of collections that are not there.

    Args:
        named: Their ids, or a name in quotes.
    """
    return UnknownCollection(
        f"There is no collection {named}.", "Look at `rag collections list`, or create it first."
    )


_CONFIGS = sa.text(
    "SELECT id, text_config FROM rag_collections WHERE id = ANY(CAST(:collection_ids AS uuid[]))"
)
# Documents are locked in the order in which a bulk load locks them, and as an update does, which waits in its turn:
# many who take the key's lock one after another pass by whoever waits to publish, without end. Nothing is written
# where a collection is missing, so that whoever catches the error may commit.
_JOIN = sa.text("""
WITH asked AS MATERIALIZED (
    SELECT DISTINCT * FROM unnest(CAST(:collection_ids AS uuid[]), CAST(:article_ids AS text[]))
        AS a (collection_id, article_id)
), collections AS MATERIALIZED (
    SELECT id FROM rag_collections WHERE id = ANY(CAST(:collection_ids AS uuid[])) ORDER BY id FOR KEY SHARE
), documents AS MATERIALIZED (
    SELECT id, article_id FROM rag_documents WHERE article_id = ANY(CAST(:article_ids AS text[]))
    ORDER BY article_id COLLATE "C" FOR NO KEY UPDATE
), added AS (
    INSERT INTO rag_collection_documents (collection_id, document_id)
    SELECT c.id, d.id
    FROM asked a JOIN collections c ON c.id = a.collection_id JOIN documents d ON d.article_id = a.article_id
    WHERE (SELECT count(*) FROM collections) = (SELECT count(DISTINCT collection_id) FROM asked)
    ORDER BY c.id, d.id
    ON CONFLICT (collection_id, document_id) DO NOTHING
    RETURNING document_id
)
SELECT (SELECT count(*) FROM added) AS added, ARRAY(SELECT id FROM collections) AS known, ARRAY(
    SELECT a.article_id FROM asked a EXCEPT SELECT d.article_id FROM documents d ORDER BY 1
) AS unknown
""")
