"""Statements that write a version, and give rows the embeddings that they wait for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import sqlalchemy as sa

from ragschema.embeddings.column_type import EmbeddingArray
from ragschema.embeddings.half_column_type import HalfEmbeddingArray
from ragschema.publishing.live_models import GONE_MODELS
from ragschema.schema.index_reads import is_one, rows_of
from ragschema.sql.shortening import named, short

_GIVEN = (
    "CAST((CAST(:embeddings AS real[]))"
    "[n.slot * CAST(:width AS integer) + 1 : (n.slot + 1) * CAST(:width AS integer)] AS vector)"
)
# Row by row, by its key, as the rows to update are found by the array of their ids besides the join: a join alone
# reads all chunks where averages let many be expected.
_KEPT = "(SELECT s.embedding FROM rag_chunks s WHERE s.id = n.source)"
_WRITTEN = rows_of("rag_chunks", "version_id", "h.id", "id, is_current")
_SOURCE = [
    f"coalesce(CAST(:{name} AS {kind}), its.{name})"
    for name, kind in (
        ("file_name", "text"),
        ("mime_type", "text"),
        ("byte_size", "bigint"),
        ("content_hash", "text"),
        ("language", "text"),
    )
]
# The document's row is locked before: this statement sees all that the lock had to wait for. The document is
# pointed at the version in a statement after it, or its triggers would look at each version twice. It hides whatever
# the document shows and the new version does not list: somebody may have added to the one before since the plan.
_VERSION_COLUMNS = (
    "id, document_id, version_number, source_hash, chunker_version, embedder_version, title, url, metadata,"
    " file_name, mime_type, byte_size, content_hash, language{moment_column}"
)
_VERSION = f"""
SELECT CAST(:version_id AS uuid), CAST(:document_id AS uuid),
    (SELECT coalesce(max(version_number), 0) + 1 FROM rag_document_versions WHERE document_id = :document_id),
    CAST(:source_hash AS text), CAST(:chunker_version AS text), CAST(:embedder_version AS text),
    CAST(:title AS text), CAST(:url AS text),
    coalesce(CAST(CAST(:metadata AS text) AS jsonb), base.metadata, '{{{{}}}}'),
    {", ".join(_SOURCE)}{{moment}}
FROM (SELECT) one LEFT JOIN rag_document_versions base ON base.id = CAST(:base_id AS uuid)
LEFT JOIN LATERAL (
    SELECT base.* WHERE NOT CAST(:has_source AS boolean) AND base.source_hash = :source_hash
) its ON true
WHERE (SELECT count(*) FROM rag_chunks WHERE id = ANY(CAST(:needed AS uuid[])))
    = cardinality(CAST(:needed AS uuid[])) AND NOT EXISTS ({GONE_MODELS})
"""
_ONCE = "ON CONFLICT (document_id, version_number) DO NOTHING RETURNING id, version_number"
_CHUNK_COLUMNS = (
    "id, version_id, ordinal, content, embedding, is_current, text_config{token_count}{moment_column}"
)
_NEW_CHUNKS = f"""
SELECT n.id, v.id, n.ordinal, n.content,
    CASE WHEN n.slot IS NULL THEN {_KEPT} ELSE {_GIVEN} END,
    true, CAST(:text_config AS text){{counted}}{{moment}}
FROM v, unnest(
    CAST(:new_ids AS uuid[]), CAST(:new_ordinals AS integer[]), CAST(:new_contents AS text[]),
    CAST(:new_slots AS integer[]), CAST(:new_sources AS uuid[]){{token_counts}}
) AS n (id, ordinal, content, slot, source{{token_count_column}})
"""
_HIDE = f"""
UPDATE rag_chunks c SET is_current = false FROM v
WHERE c.id = ANY(ARRAY(
    SELECT c.id FROM rag_document_versions h CROSS JOIN {_WRITTEN} c
    WHERE {is_one("document_id", ":document_id")} AND c.is_current
    EXCEPT SELECT unnest(CAST(:marked_ids AS uuid[]) || CAST(:filled_ids AS uuid[]))
))
RETURNING c.id
"""
# Not with the next: to assign an embedding, even its own, is to write it anew.
_MARK = """
UPDATE rag_chunks c SET is_current = true, text_config = :text_config FROM v
WHERE c.id = ANY(CAST(:marked_ids AS uuid[])) AND (NOT c.is_current OR c.text_config <> :text_config)
"""
_FILL_IN = f"""
UPDATE rag_chunks c
SET is_current = true,
    text_config = :text_config,
    embedding = coalesce(c.embedding, x.embedding)
FROM (
    SELECT n.id, CASE WHEN n.slot IS NULL THEN {_KEPT} ELSE {_GIVEN} END AS embedding,
        (SELECT w.embedding IS NULL FROM rag_chunks w WHERE w.id = n.id) AS waited
    FROM v, unnest(
        CAST(:filled_ids AS uuid[]), CAST(:filled_slots AS integer[]), CAST(:filled_sources AS uuid[])
    ) AS n (id, slot, source)
    ) x
WHERE c.id = x.id AND c.id = ANY(CAST(:filled_ids AS uuid[])) AND (
    NOT c.is_current OR c.text_config <> :text_config OR c.embedding IS NULL AND x.embedding IS NOT NULL
)
RETURNING x.waited AND x.embedding IS NOT NULL AS late
"""
_ADD_EVENTS = """
INSERT INTO rag_chunk_events (id, version_id, chunk_id, ordinal, event_type{location})
SELECT e.id, v.id, e.chunk_id, e.ordinal, e.event_type{located}
FROM v, unnest(
    CAST(:event_ids AS uuid[]), CAST(:event_chunk_ids AS uuid[]), CAST(:event_ordinals AS integer[]),
    CAST(CAST(:event_types AS text[]) AS chunk_event_type[]){locations}  -- a prepared enum is one schema's
) AS e (id, chunk_id, ordinal, event_type{location_columns})
"""
_WRITE = f"""
WITH v AS (INSERT INTO rag_document_versions ({_VERSION_COLUMNS}) {_VERSION} {_ONCE}),
chunks AS (INSERT INTO rag_chunks ({_CHUNK_COLUMNS}) {_NEW_CHUNKS}),
hidden AS ({_HIDE}), marked AS ({_MARK}), {{filled}}events AS ({_ADD_EVENTS})
SELECT version_number, {{late}}, ARRAY(SELECT id FROM hidden) FROM v
"""
# To fill in nothing is an eighth of what the statement costs a server that has to plan it.
_UNFILLED = {"filled": "", "late": "0"}
_FILLED = {
    "filled": f"filled AS ({_FILL_IN}), ",
    "late": "(SELECT count(*) FROM filled WHERE late)",
}
_NO_MOMENT = {"moment": "", "moment_column": ""}
_MOMENT = {"moment": ", now()", "moment_column": ", created_at"}
_UNLOCATED = dict.fromkeys(
    (
        "token_count",
        "counted",
        "token_counts",
        "token_count_column",
        "location",
        "located",
        "locations",
        "location_columns",
    ),
    "",
)
_LOCATED = {
    "token_count": ", token_count",
    "counted": ", coalesce(n.tokens, (SELECT s.token_count FROM rag_chunks s WHERE s.id = n.alike))",
    "token_counts": ", CAST(:new_tokens AS integer[]), CAST(:new_alike AS uuid[])",
    "token_count_column": ", tokens, alike",
    "location": ", start_offset, end_offset, metadata",
    "located": ", e.starts, e.ends, CAST(e.details AS jsonb)",
    "locations": ", CAST(:event_starts AS integer[]), CAST(:event_ends AS integer[]), CAST(:event_details AS text[])",
    "location_columns": ", starts, ends, details",
}
WRITE = {
    (is_located, is_filled): named(
        short(
            _WRITE.format(
                **(_LOCATED if is_located else _UNLOCATED),
                **(_FILLED if is_filled else _UNFILLED),
                **_NO_MOMENT,
            )
        ).bindparams(sa.bindparam("embeddings", type_=EmbeddingArray())),
        "version_number",
        "embedded",
        "hidden",
    )
    for is_located, is_filled in product((False, True), repeat=2)
}
"""By whether anything is said of where chunks stand, and whether rows get embeddings that they wait for."""
_OF_VERSION = "v AS MATERIALIZED (SELECT CAST(:version_id AS uuid) AS id)"


@dataclass(frozen=True)
class Apart:
    """The statements that write a version one after the other, each on its own: for Citus.

    What a statement hands from one of its parts to another goes there by way of every node, and is committed by all of
    them in two phases; none of these does. Rows are worked out before they are inserted, with every column that has a
    default: Citus sends an INSERT whose SELECT reads a table and has a function of the moment as one that is none.
    """

    version: sa.TextualSelect
    chunks: sa.TextClause
    hide: sa.TextualSelect
    mark: sa.TextClause
    fill: sa.TextualSelect
    events: sa.TextClause


def _apart(located: dict[str, str]) -> Apart:
    def statement(text: str) -> sa.TextClause:
        made = short(text.format(**located, **_MOMENT))
        if ":embeddings" in text:
            made = made.bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))
        return made

    version = (
        f"WITH new AS MATERIALIZED ({_VERSION})"
        f" INSERT INTO rag_document_versions ({_VERSION_COLUMNS}) SELECT * FROM new {_ONCE}"
    )
    chunks = (
        f"WITH {_OF_VERSION}, new AS MATERIALIZED ({_NEW_CHUNKS})"
        f" INSERT INTO rag_chunks ({_CHUNK_COLUMNS}) SELECT * FROM new"
    )
    return Apart(
        named(statement(version), "id", "version_number"),
        statement(chunks),
        named(statement(f"WITH {_OF_VERSION} {_HIDE}"), "id"),
        statement(f"WITH {_OF_VERSION} {_MARK}"),
        named(statement(f"WITH {_OF_VERSION} {_FILL_IN}"), "late"),
        statement(f"WITH {_OF_VERSION} {_ADD_EVENTS}"),
    )


APART, APART_LOCATED = _apart(_UNLOCATED), _apart(_LOCATED)
# A reason why a chunk has no embedding goes when one comes: too seldom for the statement that writes every version.
EXCUSE = sa.text("""
UPDATE rag_chunks SET embedding_error = NULL
WHERE id = ANY(CAST(:ids AS uuid[])) AND embedding IS NOT NULL AND embedding_error IS NOT NULL
""")
COUNT_TOKENS = sa.text("""
UPDATE rag_chunks c SET token_count = n.token_count
FROM unnest(CAST(:ids AS uuid[]), CAST(:token_counts AS integer[])) AS n (id, token_count)
WHERE c.id = n.id AND c.id = ANY(CAST(:ids AS uuid[])) AND c.token_count IS NULL
""")
FILL = sa.text(f"""
UPDATE rag_chunks c SET embedding = x.embedding, embedding_error = NULL
FROM (
    SELECT n.id, CASE WHEN n.slot IS NULL THEN {_KEPT} ELSE {_GIVEN} END AS embedding
    FROM unnest(
        CAST(:filled_ids AS uuid[]), CAST(:filled_slots AS integer[]), CAST(:filled_sources AS uuid[])
    ) AS n (id, slot, source)
) x
WHERE c.id = x.id AND c.id = ANY(CAST(:filled_ids AS uuid[])) AND c.embedding IS NULL AND x.embedding IS NOT NULL
AND NOT EXISTS (SELECT FROM rag_embedding_models WHERE id = 1 AND state = 'retired')
""").bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))
# The chunks' rows have been locked and marked before, and these are written in the order of their keys, as workers
# write theirs: whoever waits here for another one's row is not waited for. They are worked out before, for Citus makes
# a statement that is none of an INSERT of what a subquery reads.
EMBED = sa.text("""
WITH n AS MATERIALIZED (
    SELECT w.chunk_id, w.model_id, w.embedding, (SELECT c.is_current FROM rag_chunks c WHERE c.id = w.chunk_id)
    FROM (
        SELECT * FROM unnest(
            CAST(:sent_ids AS uuid[]), CAST(:sent_models AS smallint[]), :embeddings
        ) AS s (chunk_id, model_id, embedding)
        UNION ALL
        SELECT k.chunk_id, k.model_id, (
            SELECT s.embedding FROM rag_chunk_embeddings s WHERE s.chunk_id = k.source AND s.model_id = k.model_id
        )
        FROM unnest(
            CAST(:kept_ids AS uuid[]), CAST(:kept_models AS smallint[]), CAST(:kept_sources AS uuid[])
        ) AS k (chunk_id, model_id, source)
    ) w
    WHERE w.embedding IS NOT NULL
    ORDER BY w.model_id, w.chunk_id
), stored AS (
    INSERT INTO rag_chunk_embeddings AS e (chunk_id, model_id, embedding, is_current)
    SELECT * FROM n
    ON CONFLICT (chunk_id, model_id) DO UPDATE SET embedding = excluded.embedding, embedding_error = NULL
    WHERE e.embedding IS NULL
    RETURNING e.chunk_id
)
SELECT count(*) FROM stored WHERE chunk_id = ANY(CAST(:reused_ids AS uuid[]))
""").bindparams(sa.bindparam("embeddings", type_=HalfEmbeddingArray()))
