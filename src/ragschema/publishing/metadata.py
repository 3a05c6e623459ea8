"""The metadata of versions, corrected like their title and url."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ragschema.publishing.document_locks import lock_document
from ragschema.publishing.errors import PublishingError, UnknownDocument, unknown_document
from ragschema.publishing.sources import write_metadata
from ragschema.publishing.texts import check_article_id
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.schema.base import Executor
from ragschema.values import check_whole


@dataclass(frozen=True)
class DescribedVersion:
    """A version whose metadata was set.

    Attributes:
        id: Of the version.
        document_id: Of its document.
        version_number: Its number.
        metadata: What it has now.
    """

    id: UUID
    document_id: UUID
    version_number: int
    metadata: dict[str, Any]


def set_metadata(
    session: Executor,
    article_id: str,
    metadata: Mapping[str, Any],
    *,
    version_number: int | None = None,
    merge: bool = False,
) -> DescribedVersion:
    """Replace the metadata of a version, in the caller's transaction. Does not commit.

    Writes no version and embeds nothing; searches filter by it from the commit on, and the next version has it too
    unless it comes with its own. Locks the document's row until the transaction ends, so that no publish takes the
    former metadata over meanwhile.

    Args:
        session: A session or connection.
        article_id: The caller's key of the document.
        metadata: A dict of JSON values, its keys texts, of at most 262,144 bytes.
        version_number: Which version; the current one by default.
        merge: Whether keys that are not given stay, as ``||`` of jsonb joins them: one level deep.

    Raises:
        ContentError: The metadata cannot be stored.
        PublishingError: The connection is in autocommit mode.
        UnknownDocument: There is no such article, or no such version of it.
    """
    check_article_id(article_id)
    if version_number is not None:
        version_number = check_whole("version_number", version_number, PublishingError, most=2**31 - 1)
    written = write_metadata(article_id, metadata)
    check_atomic(session, "set_metadata")
    document = lock_document(session, article_id)
    if document is None:
        raise unknown_document(article_id)
    parameters = {
        "document_id": document.id,
        "current_version_id": document.current_version_id,
        "version_number": version_number,
        "metadata": written,
        "merge": bool(merge),
    }
    row = connection_of(session).execute(_SET, parameters).one_or_none()
    if row is None:
        which = "current version" if version_number is None else f"version {version_number}"
        raise UnknownDocument(f"Article {article_id!r} has no {which}.", "Publish one first.")
    return DescribedVersion(row.id, row.document_id, row.version_number, row.metadata)


_SET = sa.text("""
UPDATE rag_document_versions v
SET metadata = CASE WHEN :merge THEN v.metadata ELSE '{}' END || CAST(CAST(:metadata AS text) AS jsonb)
WHERE v.document_id = :document_id
AND CASE WHEN CAST(:version_number AS integer) IS NULL THEN v.id = :current_version_id
    ELSE v.version_number = :version_number END
RETURNING v.id, v.document_id, v.version_number, v.metadata
""").columns(metadata=JSONB)
