"""Duplicates: entities that may be one, for a person or a model to judge before they are merged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from ragschema.graph.arguments import check_number, check_types
from ragschema.graph.errors import GraphError
from ragschema.schema.base import Executor
from ragschema.values import several

_MOST = 100_000


@dataclass(frozen=True)
class DuplicatePair:
    """Two current entities that may be one.

    Attributes:
        entity_id: The one that more chunks mention, or that is older: the one to keep, if they are.
        entity_type: Its type.
        name: Its name.
        other_id: The other.
        other_type: Its type.
        other_name: Its name.
        reason: ``same name``: of different types; ``similar name``: of one type.
        similarity: Of the names by their trigrams, from 0 to 1; 1 where they are the same.
    """

    entity_id: UUID
    entity_type: str
    name: str
    other_id: UUID
    other_type: str
    other_name: str
    reason: Literal["same name", "similar name"]
    similarity: float


@dataclass(frozen=True)
class Duplicates:
    """Candidates for a merge, and by what they were found.

    Attributes:
        pairs: The candidates, the most similar first.
        has_trigrams: Whether names were compared by trigrams. False where the extension pg_trgm is not installed: only
            the same name in other types was looked for then, and entities of similar names were **not**.
        remedy: What to run for that; empty where trigrams were compared.
    """

    pairs: tuple[DuplicatePair, ...]
    has_trigrams: bool
    remedy: str


def duplicates(
    session: Executor,
    *,
    ids: Collection[UUID] | None = None,
    entity_types: Collection[str] | None = None,
    similarity: float = 0.5,
    limit: int = 100,
) -> Duplicates:
    """Return pairs of current entities that may be one: the same name in other types, and similar names in one type.

    Similar names are found by trigrams, with the extension pg_trgm where it is installed; the result says where it is
    not. Without ``ids`` names are compared that share one of the four rarest trigrams of either, which at most 50 names
    of the type have: of 200,000 entities that takes seconds, and a pair with only common trigrams in common is missed.
    With ``ids`` these are compared with every entity of their types.

    Args:
        session: Reads only.
        ids: Only pairs that one of these entities is in; an empty one finds nothing.
        entity_types: Only entities of these types.
        similarity: How similar names are at least, above 0 to 1; 1 is the same trigrams.
        limit: How many pairs at most.

    Raises:
        GraphError: An argument cannot be used.
    """
    check_number("limit", limit, 1, _MOST)
    if not isinstance(similarity, int | float) or isinstance(similarity, bool) or not 0 < similarity <= 1:
        raise GraphError(f"similarity is {similarity!r:.60}.", "Pass a number above 0 and up to 1.")
    types = check_types("entity_types", entity_types)
    wanted = None if ids is None else several("ids", ids, GraphError, each=UUID)
    values: dict[str, Any] = {"limit": limit, "types": types, "ids": wanted}
    found = [DuplicatePair(**row) for row in session.execute(_SAME, values).mappings()]
    schema = session.execute(_EXTENSION).scalar_one_or_none()
    if schema is not None:
        compared = _TRIGRAMS if wanted is None else _TRIGRAMS_OF_SOME
        statement = sa.text(compared.replace("{trgm}", schema.replace(":", "\\:"))).columns(**_IDS)
        rows = session.execute(statement, values | {"similarity": similarity}).mappings()
        found += [DuplicatePair(**row) for row in rows]
    found.sort(key=lambda pair: (-pair.similarity, pair.name, pair.other_name, pair.entity_id, pair.other_id))
    remedy = "" if schema is not None else "CREATE EXTENSION pg_trgm"
    return Duplicates(tuple(found[:limit]), schema is not None, remedy)


_IDS = {"entity_id": sa.Uuid(), "other_id": sa.Uuid()}
_EXTENSION = sa.text("""
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_trgm' AND has_schema_privilege(n.oid, 'USAGE')
""")
_LIVING = """
    SELECT e.id, e.entity_type, e.name, e.name_key FROM rag_entities e
    WHERE e.is_current AND (CAST(:types AS text[]) IS NULL OR e.entity_type = ANY(CAST(:types AS text[])))
"""
# Of two the one is kept that more chunks mention; of as many the older. No more than 1,000 mentions are counted.
_RANKED = """
SELECT CASE WHEN s.is_first THEN a.id ELSE b.id END AS entity_id,
    CASE WHEN s.is_first THEN a.entity_type ELSE b.entity_type END AS entity_type,
    CASE WHEN s.is_first THEN a.name ELSE b.name END AS name,
    CASE WHEN s.is_first THEN b.id ELSE a.id END AS other_id,
    CASE WHEN s.is_first THEN b.entity_type ELSE a.entity_type END AS other_type,
    CASE WHEN s.is_first THEN b.name ELSE a.name END AS other_name,
    p.reason, p.similarity
FROM pairs p JOIN rag_entities a ON a.id = p.a JOIN rag_entities b ON b.id = p.b
CROSS JOIN LATERAL (
    SELECT (count(*) FILTER (WHERE m.entity_id = a.id), b.created_at, b.id)
        >= (count(*) FILTER (WHERE m.entity_id = b.id), a.created_at, a.id) AS is_first
    FROM (
        (SELECT entity_id FROM rag_entity_mentions WHERE entity_id = a.id LIMIT 1000)
        UNION ALL (SELECT entity_id FROM rag_entity_mentions WHERE entity_id = b.id LIMIT 1000)
    ) m
) s
"""
_OF_SOME = (
    "(CAST(:ids AS uuid[]) IS NULL OR a.id = ANY(CAST(:ids AS uuid[])) OR b.id = ANY(CAST(:ids AS uuid[])))"
)
_SAME = sa.text(f"""
WITH living AS ({_LIVING}), pairs AS MATERIALIZED (
    SELECT a.id AS a, b.id AS b, 'same name' AS reason, CAST(1 AS float8) AS similarity
    FROM living a JOIN living b ON b.name_key = a.name_key AND b.id > a.id
    WHERE {_OF_SOME}
    ORDER BY a.name_key, a.id, b.id LIMIT :limit
)
{_RANKED}
""").columns(**_IDS)
_TRIGRAMS = f"""
WITH living AS MATERIALIZED ({_LIVING}), parts AS MATERIALIZED (
    SELECT l.id, l.entity_type, t.part FROM living l CROSS JOIN LATERAL unnest({{trgm}}.show_trgm(l.name_key)) t (part)
), counted AS (
    SELECT entity_type, part, count(*) AS names FROM parts GROUP BY entity_type, part
), rare AS MATERIALIZED (
    SELECT r.id, r.entity_type, r.part FROM (
        SELECT p.id, p.entity_type, p.part, row_number() OVER (PARTITION BY p.id ORDER BY c.names, p.part) AS place
        FROM parts p JOIN counted c ON c.entity_type = p.entity_type AND c.part = p.part
        WHERE c.names BETWEEN 2 AND 50
    ) r WHERE r.place <= 4
), met AS MATERIALIZED (
    SELECT DISTINCT least(a.id, b.id) AS a, greatest(a.id, b.id) AS b
    FROM rare a JOIN parts b ON b.entity_type = a.entity_type AND b.part = a.part AND b.id <> a.id
), pairs AS MATERIALIZED (
    SELECT m.a, m.b, 'similar name' AS reason, CAST({{trgm}}.similarity(a.name_key, b.name_key) AS float8) AS similarity
    FROM met m JOIN living a ON a.id = m.a JOIN living b ON b.id = m.b
    WHERE {{trgm}}.similarity(a.name_key, b.name_key) >= CAST(:similarity AS float8)
    ORDER BY similarity DESC, m.a, m.b LIMIT :limit
)
{_RANKED}
"""
_TRIGRAMS_OF_SOME = f"""
WITH living AS ({_LIVING}), pairs AS MATERIALIZED (
    SELECT DISTINCT ON (similarity, a, b) each.* FROM (
        SELECT least(a.id, b.id) AS a, greatest(a.id, b.id) AS b, 'similar name' AS reason,
            CAST({{trgm}}.similarity(a.name_key, b.name_key) AS float8) AS similarity
        FROM living a JOIN living b ON b.entity_type = a.entity_type AND b.id <> a.id
        WHERE a.id = ANY(CAST(:ids AS uuid[]))
        AND {{trgm}}.similarity(a.name_key, b.name_key) >= CAST(:similarity AS float8)
    ) each
    ORDER BY similarity DESC, a, b LIMIT :limit
)
{_RANKED}
"""
