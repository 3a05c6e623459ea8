"""Citations of messages: kept as they were, compared with what has become of the documents, erased with them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.chat.arguments import check_id, check_number, check_texts
from ragschema.chat.errors import ChatError
from ragschema.chat.records import CitationState, CitationStatus
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import is_one, rows_of
from ragschema.values import check_text, several

_IDS = ("document_id", "version_id", "chunk_id")
_TEXTS = ("article_id", "content")
_NUMBERS = {"version_number": 1, "ordinal": 0}
_NEEDED = (*_IDS, *_TEXTS, *_NUMBERS, "title", "url")
_OPTIONAL = ("start_offset", "end_offset", "score", "distance")


def write_citations(hits: Sequence[object], cited: Collection[int] | None) -> str:
    """Return the rows of a message's citations, as JSON.

    Args:
        hits: Rows of a search, in the order in which the model was shown them.
        cited: The places of those that the message cites, from 1; None: all of them.

    Raises:
        ChatError: A hit is none, or a place is not among them.
    """
    found = several("citations", hits, ChatError, is_ordered=True)
    places = set(range(1, len(found) + 1))
    if cited is not None:
        given = several("cited", cited, ChatError)
        for place in given:
            check_number("cited", place, 1, len(found))
        places = set(given)
    return json.dumps(
        [
            _write(_read_hit(hit, number), number, number in places)
            for number, hit in enumerate(found, start=1)
        ]
    )


def _read_hit(hit: object, number: int) -> dict[str, Any]:
    """Return what a hit says, whether it is a row, a mapping or an object.

    Raises:
        ChatError: It does not say all of it, or something that cannot be kept.
    """
    names = hit if isinstance(hit, Mapping) else getattr(hit, "_mapping", None)
    said = {
        name: names.get(name) if names is not None else getattr(hit, name, None)
        for name in (*_NEEDED, *_OPTIONAL)
    }
    missing = [name for name in (*_IDS, *_TEXTS, *_NUMBERS) if said[name] is None]
    if missing:
        raise ChatError(
            f"Hit {number} has no {missing[0]}.", "Pass rows of nearest_chunks or hybrid_search, whole."
        )
    for name in _IDS:
        check_id(f"{name} of hit {number}", said[name])
    for name in _TEXTS:
        check_text(f"{name} of hit {number}", said[name], ChatError)
    check_texts(**{f"{name} of hit {number}": said[name] for name in ("title", "url")})
    for name, lowest in _NUMBERS.items():
        check_number(f"{name} of hit {number}", said[name], lowest)
    for name in ("start_offset", "end_offset"):
        if said[name] is not None:
            check_number(f"{name} of hit {number}", said[name])
    for name in ("score", "distance"):
        said[name] = _read_measure(f"{name} of hit {number}", said[name])
    return said


def _read_measure(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        measure = float(value)  # type: ignore[arg-type]  # numpy's numbers too
    except (TypeError, ValueError, OverflowError):
        measure = math.nan
    if isinstance(value, bool | str) or not math.isfinite(measure):
        raise ChatError(f"{name} is {value!r:.60}.", "Pass the number that the search returned.")
    return measure


def _write(said: dict[str, Any], number: int, is_cited: bool) -> dict[str, Any]:
    content = said.pop("content")
    return {
        **{name: str(value) if isinstance(value, UUID) else value for name, value in said.items()},
        "number": number,
        "is_cited": is_cited,
        "content_hash": sha256(content.encode()).hexdigest(),
        "quote": content if is_cited else None,
    }


def citation_status(session: Executor, message_id: UUID) -> list[CitationStatus]:
    """Return what was found for a message, in order, each with what has become of it, by one statement.

    Texts are compared by their hash, so that a text that a later version has too is current, whichever row holds it
    there. Empty where the message cites nothing, or is not there.

    Raises:
        ChatError: The message's id is none.
    """
    check_id("message_id", message_id)
    rows = session.execute(_STATUS, {"message_id": message_id}).mappings()
    return [_read_status(row) for row in rows]


def _read_status(row: sa.RowMapping) -> CitationStatus:
    said = dict(row)
    return CitationStatus(
        **said | {"state": CitationState(said["state"]), "content_hash": bytes(said["content_hash"])}
    )


def erase_citations(session: Executor, document_ids: Collection[UUID]) -> list[UUID]:
    """Take what was quoted of some documents out of all citations, in the caller's transaction.

    Quotes, titles and urls go; which place of which document was cited, and its hash, stay. A message that is added
    after the documents were purged gets none. One that is being added meanwhile, and commits later, keeps its quotes:
    call this again when the documents are long gone.

    Args:
        session: In whose transaction.
        document_ids: The documents.

    Returns:
        The messages for which these documents were found, in the order of their ids: their text may repeat what was
        erased, and is the caller's to change or remove. Those of former calls are among them.

    Raises:
        ChatError: The ids are none.
    """
    ids = several("document_ids", document_ids, ChatError, each=UUID)
    return list(session.execute(_ERASE, {"document_ids": ids}).scalars())


_CITATION = (
    "number, is_cited, document_id, article_id, version_id, version_number, chunk_id, ordinal, start_offset,"
    " end_offset, content_hash, quote, title, url, score, distance"
)
_GIVEN = {  # a document that was erased while its answer was written is not quoted again
    "content_hash": "decode(c.content_hash, 'hex')",
    **{
        name: f"CASE WHEN c.document_id = ANY (known.ids) THEN c.{name} END"
        for name in ("quote", "title", "url")
    },
}
KNOWN_DOCUMENTS = """
SELECT array_agg(d.id) AS ids FROM rag_documents d WHERE d.id = ANY (ARRAY(
    SELECT CAST(c ->> 'document_id' AS uuid) FROM jsonb_array_elements(CAST(CAST(:citations AS text) AS jsonb)) c
))
"""
"""The CTE ``known`` of the statement that adds a message, by itself: Citus fails at a table in an INSERT's SELECT."""

INSERT_CITATIONS = f"""
INSERT INTO rag_chat_citations (message_id, {_CITATION})
SELECT message.id, {", ".join(_GIVEN.get(name, f"c.{name}") for name in _CITATION.split(", "))}
FROM message CROSS JOIN known CROSS JOIN jsonb_to_recordset(CAST(CAST(:citations AS text) AS jsonb)) AS c (
    number integer, is_cited boolean, document_id uuid, article_id text, version_id uuid, version_number integer,
    chunk_id uuid, ordinal integer, start_offset integer, end_offset integer, content_hash text, quote text, title text,
    url text, score float8, distance float8
)
"""
"""Of the statement that adds a message, whose row is the CTE ``message``, beside `KNOWN_DOCUMENTS`."""

_IS_DELETED = "d.deleted_at IS NOT NULL"
# The chunk itself, else any row of the current version's manifest: there are those who copy what is unchanged.
_HASH = "sha256(convert_to({}.content, 'UTF8')) = t.content_hash"
_MANIFEST = f"""
    SELECT FROM {rows_of("rag_chunk_events", "version_id", "d.current_version_id")} e
    JOIN rag_chunks c ON c.id = e.chunk_id
    WHERE e.event_type <> 'deleted' AND {_HASH.format("c")}
"""
_WRITTEN = f"""
    SELECT FROM {rows_of("rag_chunks", "version_id", "d.current_version_id")} c
    WHERE {_HASH.format("c")} AND (
        SELECT e.id FROM rag_chunk_events e WHERE {is_one("e.version_id", "d.current_version_id")}
        ORDER BY e.version_id LIMIT 1
    ) IS NULL
"""
_STATUS = sa.text(f"""
SELECT t.message_id, {", ".join(f"t.{name}" for name in _CITATION.split(", "))}, t.erased_at, CASE
        WHEN d.id IS NULL THEN 'purged'
        WHEN {_IS_DELETED} THEN 'deleted'
        WHEN EXISTS (SELECT FROM rag_chunks c WHERE c.id = t.chunk_id AND c.is_current AND {_HASH.format("c")})
            OR EXISTS ({_MANIFEST}) OR EXISTS ({_WRITTEN}) THEN 'current'
        WHEN EXISTS (SELECT FROM rag_document_versions v WHERE v.id = t.version_id) THEN 'changed_version_kept'
        ELSE 'changed_version_pruned'
    END AS state
FROM rag_chat_citations t
LEFT JOIN LATERAL (SELECT * FROM rag_documents WHERE id = t.document_id OFFSET 0) d ON true
WHERE t.message_id = :message_id ORDER BY t.number
""").columns(
    message_id=sa.Uuid(), document_id=sa.Uuid(), version_id=sa.Uuid(), chunk_id=sa.Uuid(), state=sa.Text()
)
# In the order of the key, so that two erasures do not wait for each other.
_ERASE = sa.text("""
WITH found AS MATERIALIZED (
    SELECT message_id, number, erased_at FROM rag_chat_citations
    WHERE document_id = ANY(CAST(:document_ids AS uuid[])) ORDER BY message_id, number FOR UPDATE
), erased AS (
    UPDATE rag_chat_citations c SET quote = NULL, title = NULL, url = NULL, erased_at = CURRENT_TIMESTAMP
    FROM found WHERE (c.message_id, c.number) = (found.message_id, found.number) AND found.erased_at IS NULL
)
SELECT DISTINCT message_id FROM found ORDER BY message_id
""").columns(message_id=sa.Uuid())
