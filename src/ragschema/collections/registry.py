"""The collections there are: created, listed, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from ragschema.collections.errors import CollectionError, check_id
from ragschema.database.atomicity import savepoint
from ragschema.jobs.payloads import write_json
from ragschema.jobs.records import JobError
from ragschema.publishing.memberships import refuse_unknown, unknown_collection
from ragschema.publishing.text_configs import check_text_configs
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.values import check_text

NAME_BYTES = 500
"""The longest name, in bytes of UTF-8."""


@dataclass(frozen=True)
class CollectionRecord:
    """A collection.

    Attributes:
        id: What searches take as ``collection_ids``.
        name: What people call it.
        description: What is in it.
        text_config: Text search configuration of documents that are first published into it.
        details: What a service keeps about it.
        documents: How many documents it has.
        created_at: When it was created.
        updated_at: When anything of it last changed, its documents apart.
    """

    id: UUID
    name: str
    description: str
    text_config: str
    details: dict[str, Any]
    documents: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class DeletedCollection:
    """A collection that is gone.

    Attributes:
        id: Its id.
        name: Its name.
        documents: How many documents it had; all are there still.
    """

    id: UUID
    name: str
    documents: int


def create_collection(
    session: Executor,
    name: str,
    description: str,
    *,
    text_config: str = "simple",
    details: Mapping[str, Any] | None = None,
) -> CollectionRecord:
    """Create a collection, in the caller's transaction.

    Args:
        session: A session or connection.
        name: What people call it, of which there is one.
        description: What is in it, for those who choose where to search: people, or a model.
        text_config: Text search configuration of documents that are first published into it, as in `plan_version`.
        details: What the service keeps about it, an object of JSON.

    Raises:
        CollectionError: The name or the description is blank, or there is a collection of this name.
        ContentError: The server has no such text configuration.
    """
    for argument, value in (("name", name), ("description", description), ("text_config", text_config)):
        check_text(f"The {argument} of a collection", value, CollectionError)
    values = _checked(session, name=name, description=description, text_config=text_config, details=details)
    row = connection_of(session).execute(_CREATE, values).one_or_none()
    if row is None:
        raise _taken(name)
    return _record(row)


def list_collections(session: Executor) -> list[CollectionRecord]:
    """Return all collections, in the order of their names."""
    return [_record(row) for row in connection_of(session).execute(_LIST)]


def find_collection(session: Executor, name: str) -> CollectionRecord:
    """Return the collection of a name.

    Raises:
        UnknownCollection: There is none.
    """
    check_text("name", name, CollectionError)
    row = connection_of(session).execute(_FIND, {"name": name}).one_or_none()
    if row is None:
        raise unknown_collection(repr(name))
    return _record(row)


def update_collection(
    session: Executor,
    collection_id: UUID,
    *,
    name: str | None = None,
    description: str | None = None,
    text_config: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> CollectionRecord:
    """Change what is given of a collection, in the caller's transaction.

    Args:
        session: A session or connection.
        collection_id: The collection.
        name: Its new name.
        description: Its new description.
        text_config: Of documents that are first published into it from now on; those that are there keep theirs.
        details: All of its details, anew.

    Raises:
        CollectionError: The collection is no id, nothing is given, or as of `create_collection`.
        ContentError: The server has no such text configuration.
        UnknownCollection: There is no such collection.
    """
    check_id(collection_id)
    values = _checked(session, name=name, description=description, text_config=text_config, details=details)
    if all(value is None for value in values.values()):
        raise CollectionError(
            "Nothing of the collection is to be changed.",
            "Pass a name, a description, a text_config or details.",
        )
    connection = connection_of(session)
    try:
        with savepoint(connection):
            row = connection.execute(_UPDATE, {**values, "collection_id": collection_id}).one_or_none()
    except IntegrityError as exc:
        if getattr(exc.orig, "sqlstate", None) != "23505":  # unique_violation
            raise
        raise _taken(str(name)) from exc
    if row is None:
        raise unknown_collection(str(collection_id))
    return _record(row)


def delete_collection(session: Executor, collection_id: UUID) -> DeletedCollection:
    """Delete a collection, in the caller's transaction. Its documents stay, and are in their other collections.

    Raises:
        CollectionError: The collection is no id.
        UnknownCollection: There is no such collection.
    """
    check_id(collection_id)
    row = connection_of(session).execute(_DELETE, {"collection_id": collection_id}).one_or_none()
    if row is None:
        refuse_unknown([collection_id], ())
    assert row is not None
    return DeletedCollection(row.id, row.name, row.documents)


def _checked(
    session: Executor,
    *,
    name: str | None,
    description: str | None,
    text_config: str | None,
    details: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the values as they are stored; those that are None are not given.

    Raises:
        CollectionError: One cannot be stored.
        ContentError: The server has no such text configuration.
    """
    for argument, value in (("name", name), ("description", description), ("text_config", text_config)):
        if value is not None:
            check_text(f"The {argument} of a collection", value, CollectionError)
            if not value.strip():
                raise CollectionError(f"The {argument} of a collection is blank.", "Pass a text with words.")
    if name is not None and len(name.encode()) > NAME_BYTES:
        raise CollectionError(
            f"The name of a collection is longer than {NAME_BYTES} bytes.",
            "Put the rest into its description.",
        )
    if text_config not in (None, "simple"):
        check_text_configs(session, [text_config])
    return {
        "name": name,
        "description": description,
        "text_config": text_config,
        "details": None if details is None else _written(details),
    }


def _written(details: Mapping[str, Any]) -> str:
    if not isinstance(details, Mapping):
        raise CollectionError(
            f"The details of a collection are a {type(details).__name__}.", "Pass a dict of JSON values."
        )
    try:
        return write_json(dict(details), "details")
    except JobError as exc:
        raise CollectionError(exc.message, exc.remedy) from exc


def _taken(name: str) -> CollectionError:
    return CollectionError(f"There is a collection {name!r}.", "Give this one another name, or update that.")


def _record(row: sa.Row[Any]) -> CollectionRecord:
    return CollectionRecord(**row._mapping)


_COUNT = "(SELECT count(*) FROM rag_collection_documents m WHERE m.collection_id = c.id)"
_TYPES = {"details": JSONB}  # of a text alone, drivers differ in what they return
_OWN = "c.id, c.name, c.description, c.text_config, c.metadata AS details, {} AS documents, c.created_at, c.updated_at"
_COLUMNS = _OWN.format(_COUNT)
_CREATE = sa.text(f"""
INSERT INTO rag_collections AS c (name, description, text_config, metadata)
VALUES (:name, :description, :text_config, coalesce(CAST(:details AS jsonb), '{{}}'))
ON CONFLICT (name) DO NOTHING
RETURNING {_OWN.format("0")}
""").columns(**_TYPES)
_LIST = sa.text(f"SELECT {_COLUMNS} FROM rag_collections c ORDER BY c.name").columns(**_TYPES)
_FIND = sa.text(f"SELECT {_COLUMNS} FROM rag_collections c WHERE c.name = :name").columns(**_TYPES)
_UPDATE = sa.text(f"""
UPDATE rag_collections c
SET name = coalesce(CAST(:name AS text), c.name), description = coalesce(CAST(:description AS text), c.description),
    text_config = coalesce(CAST(:text_config AS text), c.text_config),
    metadata = coalesce(CAST(:details AS jsonb), c.metadata), updated_at = now()
WHERE c.id = :collection_id
RETURNING {_COLUMNS}
""").columns(**_TYPES)
# Counted as the statement sees them, before they go with it.
_DELETE = sa.text(f"""
WITH counted AS MATERIALIZED (
    SELECT c.id, c.name, {_COUNT} AS documents FROM rag_collections c WHERE c.id = :collection_id
), deleted AS (
    DELETE FROM rag_collections c USING counted WHERE c.id = counted.id RETURNING c.id
)
SELECT counted.* FROM counted JOIN deleted ON deleted.id = counted.id
""")
