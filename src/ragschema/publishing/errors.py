"""Errors of publishing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.exc import DontWrapMixin

from ragschema.errors import RagSchemaError
from ragschema.words import counted


class PublishingError(RagSchemaError):
    """What is asked of a document's versions cannot be done."""


class ContentError(PublishingError, ValueError, DontWrapMixin):
    """A text cannot be stored. Raised before anything is sent."""


class StalePlan(PublishingError):
    """The document is not what it was when the version was planned. Nothing was written."""


class UnknownDocument(PublishingError, LookupError):
    """There is no document, or no kept version of it, of this name."""


class DocumentDeleted(PublishingError):
    """The document is deleted, and nothing says that it is to be found again. Nothing was written."""


def in_a_transaction(function: str, what: str) -> PublishingError:
    """Return the error of a connection or session with an open transaction, where each batch is committed."""
    return PublishingError(
        f"{function} commits each batch, and this {what} is in a transaction.",
        "Commit first, or give it a connection of its own.",
    )


def unknown_document(article_id: str) -> UnknownDocument:
    return UnknownDocument(
        f"There is no document of article {article_id!r}.", "Publish a version of it first."
    )


def unknown_documents(article_ids: Sequence[str]) -> UnknownDocument:
    if len(article_ids) == 1:
        return unknown_document(article_ids[0])
    return UnknownDocument(
        f"There are no documents of {counted(len(article_ids), 'of the article ids', 'of the article ids')}.",
        "Look for a misspelt one; those that were purged are gone.",
        "\n".join(article_ids),
    )


def document_deleted(article_id: str, deleted_at: datetime) -> DocumentDeleted:
    return DocumentDeleted(
        f"Article {article_id!r} has been deleted since {deleted_at:%Y-%m-%d %H:%M:%S %Z}.",
        "Leave it out; or publish it with undelete=True, or call undelete_document, if search is to find it again.",
    )
