"""Replacements: embeddings that the source has changed, of texts that are as they were."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from ragschema.embeddings.wire import BinaryHalfVector, Vector
from ragschema.importing.documents import ImportedDocument
from ragschema.publishing.live_models import LiveModel, read_live_models
from ragschema.publishing.pending import store_embeddings
from ragschema.schema.index_reads import is_one, rows_of

# An embedding is told from another by a digest: what is stored does not travel.
_CURRENT = f"""
FROM unnest(CAST(:article_ids AS text[]), CAST(:source_hashes AS text[])) AS n (article_id, source_hash)
CROSS JOIN LATERAL (
    SELECT v.id FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id
    WHERE d.article_id = n.article_id AND v.source_hash = n.source_hash AND v.chunker_version = :chunker OFFSET 0
) AS v
CROSS JOIN {rows_of("rag_chunk_events", "version_id", "v.id", "ordinal, chunk_id, event_type")} AS e
"""
_OF_COLUMN = sa.text(f"""
SELECT n.article_id, e.ordinal, c.id, sha256(vector_send(c.embedding)) AS digest
{_CURRENT}
CROSS JOIN {rows_of("rag_chunks", "id", "e.chunk_id", "id, embedding")} AS c
WHERE e.event_type <> 'deleted' AND c.embedding IS NOT NULL
""")
_OF_MODEL = sa.text(f"""
SELECT n.article_id, e.ordinal, c.id, sha256(halfvec_send(c.embedding)) AS digest
{_CURRENT}
CROSS JOIN LATERAL (
    SELECT s.chunk_id AS id, s.embedding FROM rag_chunk_embeddings s
    WHERE {is_one("s.chunk_id", "e.chunk_id")} AND s.model_id = CAST(:model_id AS smallint) OFFSET 0
) AS c
WHERE e.event_type <> 'deleted' AND c.embedding IS NOT NULL
""")


@dataclass(frozen=True, eq=False)
class Changed:
    """Embeddings of one model that the source has changed.

    Attributes:
        model: The model.
        vectors: By chunk, what the source has now, of shape ``(dimensions,)``.
    """

    model: LiveModel
    vectors: dict[UUID, Vector]


def count_changed(connection: sa.Connection, chunker: str, documents: Sequence[ImportedDocument]) -> int:
    """Return how many embeddings of documents the source has changed; of those whose text has not changed."""
    return sum(len(each.vectors) for each in find_changed(connection, chunker, documents))


def replace_changed(connection: sa.Connection, chunker: str, documents: Sequence[ImportedDocument]) -> int:
    """Store the embeddings of documents that the source has changed in place of those that are there; count them.

    Without another version, because the text is the same. A row that somebody is publishing just now is left to the
    next run, which finds it by the same comparison.

    Args:
        connection: In the transaction that has published the documents.
        chunker: The chunker_version of the import.
        documents: Those of one batch. What no earlier run has imported is not looked at.
    """
    stored = 0
    for changed in find_changed(connection, chunker, documents):
        found = store_embeddings(
            connection,
            list(changed.vectors),
            np.array([*changed.vectors.values()]),
            changed.model.key if changed.model.is_registered else None,
            replace=True,
        )
        stored += len(found.stored)
    return stored


def find_changed(
    connection: sa.Connection, chunker: str, documents: Sequence[ImportedDocument]
) -> Iterator[Changed]:
    """Yield by model the embeddings that differ from what is stored of documents' current versions."""
    known = [document for document in documents if document.is_known]
    if not known:
        return
    live = read_live_models(connection)
    given: dict[LiveModel, dict[tuple[str, int], Vector]] = defaultdict(dict)
    for document in known:
        for key, ordinals, vectors in document.given_embeddings():
            of_model = given[live.find(key)]
            for ordinal, vector in zip(ordinals, vectors, strict=True):
                of_model[document.article_id, ordinal] = vector
    parameters = {
        "article_ids": [document.article_id for document in known],
        "source_hashes": [document.source_hash for document in known],
        "chunker": chunker,
    }
    for model, vectors_ in given.items():
        statement = _OF_COLUMN if model.is_column else _OF_MODEL
        of_statement = parameters if model.is_column else parameters | {"model_id": model.id}
        wanted: dict[UUID, Vector] = {}
        digests: dict[UUID, bytes] = {}
        for row in connection.execute(statement, of_statement):
            if (vector := vectors_.get((row.article_id, row.ordinal))) is not None:
                wanted[row.id] = vector
                digests[row.id] = bytes(row.digest)
        changed = {id_: vector for id_, vector in wanted.items() if _digest(vector, model) != digests[id_]}
        if changed:
            yield Changed(model, changed)


def _digest(vector: Vector, model: LiveModel) -> bytes:
    """Return the digest of an embedding as the server sends it."""
    if not model.is_column:
        return hashlib.sha256(BinaryHalfVector.of(vector).data).digest()
    header = len(vector).to_bytes(2, "big") + b"\0\0"
    return hashlib.sha256(header + vector.astype(">f4").tobytes()).digest()
