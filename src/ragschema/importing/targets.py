"""Targets of an import: the models that embeddings go to, and the documents that are there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from psycopg import sql

from ragschema.collections import add_documents, create_collection
from ragschema.database.server import Connection
from ragschema.importing.documents import ImportedDocument, Models
from ragschema.models import Collection
from ragschema.publishing.deleting import delete_documents_since
from ragschema.publishing.live_models import LiveModel, LiveModels
from ragschema.publishing.pending import store_embeddings

_STANDING = sa.text("""
SELECT d.article_id, v.chunker_version, v.source_hash
FROM rag_documents d LEFT JOIN rag_document_versions v ON v.id = d.current_version_id
WHERE d.article_id = ANY(CAST(:article_ids AS text[]))
""")
# Only of a version of this import: a document that was left out keeps the one that it had.
_CHUNKS = sa.text("""
SELECT e.ordinal, e.chunk_id FROM rag_chunk_events e
WHERE e.event_type <> 'deleted' AND e.version_id = (
    SELECT v.id FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id
    WHERE d.article_id = :article_id AND v.source_hash = :source_hash AND v.chunker_version = :chunker
)
""")


@dataclass(frozen=True)
class Standing:
    """A document that is there.

    Attributes:
        chunker: The chunker_version of its current version; None where it has none.
        source_hash: Of that version; empty where the document was retired.
    """

    chunker: str | None
    source_hash: str | None


def choose_models(
    live: LiveModels, keys: Sequence[str], dimensions: Iterable[int], embedder: str | None
) -> tuple[Models, list[str]]:
    """Return the models that embeddings go to by their dimensions, and what stands in the way.

    Args:
        live: The live models.
        keys: Those to choose among; all by default.
        dimensions: Of the embeddings.
        embedder: What to call a model that is missing.

    Raises:
        EmbeddingError: No live model has one of the keys.
    """
    among = [live.find(key) for key in keys] or list(live.all)
    chosen: dict[int, LiveModel] = {}
    obstacles = []
    for each in dimensions:
        fitting = [model for model in among if model.dimensions == each]
        active = [model for model in fitting if model.is_active]
        if len(fitting) == 1 or active:
            chosen[each] = (active or fitting)[0]
        elif fitting:
            known = ", ".join(repr(model.key) for model in fitting)
            obstacles.append(
                f"Several embedding models have {each:,} dimensions: {known}. Name one by --model KEY."
            )
        else:
            key = shlex.quote(f"{embedder or 'imported'}-{each}" if embedder is None else embedder)
            obstacles.append(
                f"No embedding model has {each:,} dimensions. Run `rag models add {key} --dimensions {each}`."
            )
    return chosen, obstacles


def read_standing(connection: sa.Connection, article_ids: Sequence[str]) -> dict[str, Standing]:
    """Return the documents that are there, by their ids."""
    rows = connection.execute(_STANDING, {"article_ids": list(article_ids)})
    return {row.article_id: Standing(row.chunker_version, row.source_hash) for row in rows}


def read_own(connection: Connection, schema: str, chunker: str, after: str | None) -> Iterator[str]:
    """Yield the ids of an import's documents that are not retired, in the order in which a source is read.

    A cursor of the server, in a transaction of its own.
    """
    statement = sql.SQL(
        "SELECT d.article_id FROM {} d JOIN {} v ON v.id = d.current_version_id"
        " WHERE v.chunker_version = {} AND v.source_hash <> ''"
        ' AND ({after}::text IS NULL OR d.article_id COLLATE "C" > {after}::text)'
        ' ORDER BY d.article_id COLLATE "C"'
    ).format(
        sql.Identifier(schema, "rag_documents"),
        sql.Identifier(schema, "rag_document_versions"),
        sql.Literal(chunker),
        after=sql.Literal(after),
    )
    with connection.transaction(), connection.cursor("rag_import_own") as cursor:
        cursor.execute(statement)
        for row in cursor:
            yield row[0]


def fill(connection: sa.Connection, chunker: str, documents: Sequence[ImportedDocument]) -> None:
    """Store what `publish_many` does not take: the embeddings of some chunks of a document."""
    for document in documents:
        if document.partial:
            _fill(connection, chunker, document)


def join(connection: sa.Connection, chunker: str, documents: Sequence[ImportedDocument]) -> None:
    """Put documents into their collections, which are made where none has the name; they leave none."""
    members: dict[str, list[str]] = {}
    described: dict[str, str | None] = {}
    for document in documents:
        for name, description in document.collections.items():
            members.setdefault(name, []).append(document.article_id)
            described[name] = description
    if not members:
        return
    # not by list_collections, which counts the documents of each
    found = connection.execute(sa.select(Collection.name, Collection.id).where(Collection.name.in_(members)))
    known = {row.name: row.id for row in found}
    for name, article_ids in members.items():
        if name not in known:
            text = described[name]
            description = text if text and not text.isspace() else f"Came by the {chunker}."
            known[name] = create_collection(connection, name, description).id
        add_documents(connection, known[name], article_ids)


def delete(connection: sa.Connection, documents: Sequence[ImportedDocument]) -> int:
    """Delete the documents that the source has deleted, since when it says; return how many were deleted before."""
    since = {document.article_id: document.deleted_at for document in documents if document.is_deleted}
    return delete_documents_since(connection, since).already if since else 0


def _fill(connection: sa.Connection, chunker: str, document: ImportedDocument) -> None:
    parameters = {"article_id": document.article_id, "source_hash": document.source_hash, "chunker": chunker}
    chunks: Mapping[int, UUID] = {
        row.ordinal: row.chunk_id for row in connection.execute(_CHUNKS, parameters)
    }
    for key, (ordinals, vectors) in document.partial.items():
        there = [
            (chunks[each], vector) for each, vector in zip(ordinals, vectors, strict=True) if each in chunks
        ]
        if there:
            store_embeddings(connection, [id_ for id_, _ in there], [vector for _, vector in there], key)
