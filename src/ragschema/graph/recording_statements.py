"""Statements that record extractions. Rows are made in the order of their keys, and locked in that of their ids."""

from __future__ import annotations

import sqlalchemy as sa

LOCK_CHUNK = sa.text("""
SELECT v.document_id FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id
WHERE c.id = :chunk_id FOR NO KEY UPDATE OF c
""")
# Here and below rows are worked out before they are inserted: Citus makes a statement that is none of an INSERT which
# reads a table and takes a time from a default.
ADD_EXTRACTION = sa.text("""
INSERT INTO rag_extractions (chunk_id, extractor_version) VALUES (:chunk_id, :extractor_version)
ON CONFLICT (chunk_id, extractor_version) DO NOTHING RETURNING chunk_id
""")
_WANTED = "unnest(CAST(:types AS text[]), CAST(:names AS text[]))"
# Its own name goes before an alias; what was merged leads on to the entity that was kept.
_RESOLVED = f"""
    SELECT n.place, coalesce(
        (SELECT coalesce(e.merged_into, e.id) FROM rag_entities e
        WHERE e.entity_type = n.entity_type AND e.name_key = n.name_key),
        (SELECT coalesce(e.merged_into, e.id) FROM rag_entity_aliases a JOIN rag_entities e ON e.id = a.entity_id
        WHERE a.entity_type = n.entity_type AND a.alias_key = n.name_key)
    ) AS id
    FROM (
        SELECT w.place, w.entity_type, rag_name_key(w.name) AS name_key
        FROM {_WANTED} WITH ORDINALITY AS w (entity_type, name, place)
    ) n
"""
ADD_ENTITIES = sa.text(f"""
WITH new AS MATERIALIZED (
    SELECT DISTINCT ON (w.entity_type COLLATE "C", rag_name_key(w.name) COLLATE "C")
        w.id, w.entity_type, w.name, w.description, CAST(w.properties AS jsonb)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:types AS text[]), CAST(:names AS text[]), CAST(:descriptions AS text[]),
        CAST(:properties AS text[])
    ) WITH ORDINALITY AS w (id, entity_type, name, description, properties, place)
    JOIN ({_RESOLVED}) r ON r.place = w.place AND r.id IS NULL
    ORDER BY w.entity_type COLLATE "C", rag_name_key(w.name) COLLATE "C", w.place
)
INSERT INTO rag_entities (id, entity_type, name, description, properties)
SELECT * FROM new
ON CONFLICT (entity_type, name_key) DO NOTHING
""")
LOCK_ENTITIES = sa.text(f"""
SELECT e.id FROM rag_entities e WHERE e.id = ANY(ARRAY(SELECT r.id FROM ({_RESOLVED}) r)) ORDER BY e.id
FOR NO KEY UPDATE
""")
RESOLVE = sa.text(f"SELECT r.id FROM ({_RESOLVED}) r ORDER BY r.place")
# Of several that say something of one entity the first counts.
DESCRIBE_ENTITIES = sa.text("""
UPDATE rag_entities e
SET description = coalesce(e.description, n.description), properties = n.properties || e.properties
FROM (
    SELECT DISTINCT ON (w.id) w.id,
        first_value(w.description) OVER (PARTITION BY w.id ORDER BY w.description IS NULL, w.place) AS description,
        CAST(w.properties AS jsonb) AS properties
    FROM unnest(CAST(:ids AS uuid[]), CAST(:descriptions AS text[]), CAST(:properties AS text[]))
        WITH ORDINALITY AS w (id, description, properties, place)
    ORDER BY w.id, w.place
) n
WHERE e.id = n.id AND (
    e.description IS NULL AND n.description IS NOT NULL OR n.properties || e.properties <> e.properties
)
""")
ADD_ALIASES = sa.text("""
WITH new AS MATERIALIZED (
    SELECT DISTINCT ON (w.entity_type COLLATE "C", w.alias_key COLLATE "C")
        w.entity_type, w.alias, w.entity_id, CAST(:document_id AS uuid)
    FROM (
        SELECT *, rag_name_key(alias) AS alias_key
        FROM unnest(CAST(:types AS text[]), CAST(:aliases AS text[]), CAST(:entity_ids AS uuid[]))
            AS u (entity_type, alias, entity_id)
    ) w
    WHERE NOT EXISTS (
        SELECT FROM rag_entities e WHERE e.entity_type = w.entity_type AND e.name_key = w.alias_key
    )
    ORDER BY w.entity_type COLLATE "C", w.alias_key COLLATE "C", w.entity_id
)
INSERT INTO rag_entity_aliases (entity_type, alias, entity_id, document_id)
SELECT * FROM new
ON CONFLICT (entity_type, alias_key) DO NOTHING
""")
_RELATIONS = (
    "unnest(CAST(:source_ids AS uuid[]), CAST(:types AS text[]), CAST(:target_ids AS uuid[]))"
    " AS w (source_id, relation_type, target_id)"
)
ADD_RELATIONS = sa.text("""
WITH new AS MATERIALIZED (
    SELECT DISTINCT ON (w.source_id, w.relation_type COLLATE "C", w.target_id)
        w.id, w.source_id, w.relation_type, w.target_id, w.weight, w.description, CAST(w.properties AS jsonb)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:source_ids AS uuid[]), CAST(:types AS text[]), CAST(:target_ids AS uuid[]),
        CAST(:weights AS real[]), CAST(:descriptions AS text[]), CAST(:properties AS text[])
    ) AS w (id, source_id, relation_type, target_id, weight, description, properties)
    WHERE NOT EXISTS (
        SELECT FROM rag_relations r
        WHERE r.source_id = w.source_id AND r.relation_type = w.relation_type AND r.target_id = w.target_id
    )
    ORDER BY w.source_id, w.relation_type COLLATE "C", w.target_id, w.id
)
INSERT INTO rag_relations (id, source_id, relation_type, target_id, weight, description, properties)
SELECT * FROM new
ON CONFLICT (source_id, relation_type, target_id) DO NOTHING
""")
LOCK_RELATIONS = sa.text(f"""
SELECT r.id, r.source_id, r.relation_type, r.target_id FROM rag_relations r
WHERE r.id = ANY(ARRAY(
    SELECT r.id FROM {_RELATIONS} JOIN rag_relations r
    ON r.source_id = w.source_id AND r.relation_type = w.relation_type AND r.target_id = w.target_id
))
ORDER BY r.id FOR NO KEY UPDATE
""")
DESCRIBE_RELATIONS = sa.text("""
UPDATE rag_relations r
SET weight = greatest(r.weight, n.weight), description = coalesce(r.description, n.description),
    properties = n.properties || r.properties
FROM (
    SELECT DISTINCT ON (w.id) w.id, max(w.weight) OVER (PARTITION BY w.id) AS weight,
        first_value(w.description) OVER (PARTITION BY w.id ORDER BY w.description IS NULL, w.place) AS description,
        CAST(w.properties AS jsonb) AS properties
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:weights AS real[]), CAST(:descriptions AS text[]), CAST(:properties AS text[])
    ) WITH ORDINALITY AS w (id, weight, description, properties, place)
    ORDER BY w.id, w.place
) n
WHERE r.id = n.id AND (
    n.weight > r.weight OR r.description IS NULL AND n.description IS NOT NULL
    OR n.properties || r.properties <> r.properties
)
""")
MENTION = sa.text(
    "SELECT rag_mention_facts(:chunk_id, CAST(:entity_ids AS uuid[]), CAST(:relation_ids AS uuid[]))"
)
# By the keys of chunks, a page at a time: nothing is sorted, however many there are.
PENDING = sa.text("""
SELECT c.id, c.content, v.document_id, d.article_id, current.title
FROM (
    SELECT c.id, c.content, c.version_id FROM rag_chunks c
    WHERE c.is_current AND c.id > :after AND NOT EXISTS (
        SELECT FROM rag_extractions x WHERE x.chunk_id = c.id AND x.extractor_version = :extractor_version
    )
    ORDER BY c.id LIMIT :limit
) c
JOIN rag_document_versions v ON v.id = c.version_id
JOIN rag_documents d ON d.id = v.document_id
JOIN rag_document_versions current ON current.id = d.current_version_id
ORDER BY c.id
""")
