-- Takes a merge back, by its log: what was moved and is still there is the merged entity's again. What was read since
-- stays with the entity that was kept.
CREATE OR REPLACE FUNCTION rag_undo_merge(merged uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
DECLARE
  kept uuid;
  log jsonb;
  relation record;
  settled uuid[] := '{}';
BEGIN
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  SELECT g.kept_id, g.moved INTO kept, log FROM rag_entity_merges g WHERE g.merged_id = merged FOR UPDATE;
  IF kept IS NULL THEN
    RAISE EXCEPTION 'The entity % was not merged.', merged;
  END IF;
  PERFORM FROM rag_entities e WHERE e.id IN (kept, merged) OR e.merged_into = kept ORDER BY e.id FOR UPDATE;
  PERFORM FROM rag_relations r
  WHERE r.id IN (
    SELECT g.id FROM ROWS FROM (pg_catalog.jsonb_to_recordset(log -> 'relations'::text) AS (id uuid)) AS g
    UNION
    SELECT g.twin FROM ROWS FROM (pg_catalog.jsonb_to_recordset(log -> 'relations'::text) AS (twin uuid)) AS g
  )
  ORDER BY r.id FOR UPDATE;
  FOR relation IN
    SELECT g.id, g.twin, g.is_imported, g.is_twin_made, g.is_twin_imported, g.chunks, g.shared
    FROM ROWS FROM (pg_catalog.jsonb_to_recordset(log -> 'relations'::text) AS (
      id uuid, twin uuid, is_imported boolean, is_twin_made boolean, is_twin_imported boolean, chunks uuid[],
      shared uuid[]
    )) AS g
    JOIN rag_relations r ON r.id = g.id
    ORDER BY g.id DESC -- as several may have one twin, in the reverse of the order in which they were merged
  LOOP
    INSERT INTO rag_relation_mentions (chunk_id, relation_id)
    SELECT c.id, relation.id FROM rag_chunks c WHERE c.id = ANY (relation.chunks) ON CONFLICT DO NOTHING;
    DELETE FROM rag_relation_mentions m
    WHERE m.relation_id = relation.twin AND m.chunk_id = ANY (relation.chunks) AND m.chunk_id <> ALL (relation.shared);
    UPDATE rag_relations r
    SET is_imported = CASE WHEN r.id = relation.id THEN true ELSE relation.is_twin_imported END
    WHERE relation.is_imported AND r.id IN (relation.id, relation.twin);
    DELETE FROM rag_relations r
    WHERE relation.is_twin_made AND r.id = relation.twin AND NOT r.is_imported
      AND NOT EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id);
    settled := settled OPERATOR(pg_catalog.||) ARRAY[relation.id, relation.twin];
  END LOOP;
  INSERT INTO rag_entity_mentions (chunk_id, entity_id)
  SELECT c.id, merged FROM pg_catalog.jsonb_array_elements_text(log -> 'chunks'::text) AS said (chunk)
  JOIN rag_chunks c ON c.id = said.chunk::uuid
  ON CONFLICT DO NOTHING;
  DELETE FROM rag_entity_mentions m
  WHERE m.entity_id = kept AND m.chunk_id IN (
    SELECT said.chunk::uuid FROM pg_catalog.jsonb_array_elements_text(log -> 'chunks'::text) AS said (chunk)
    EXCEPT SELECT said.chunk::uuid FROM pg_catalog.jsonb_array_elements_text(log -> 'shared'::text) AS said (chunk)
  );
  DELETE FROM rag_entity_merges g WHERE g.merged_id = merged;
  UPDATE rag_entities e SET merged_into = NULL, is_imported = (log -> 'is_imported'::text)::boolean
  WHERE e.id = merged;
  UPDATE rag_entities e SET is_imported = (log -> 'is_kept_imported'::text)::boolean
  WHERE e.id = kept AND (log -> 'is_imported'::text)::boolean;
  UPDATE rag_entities e SET merged_into = merged
  WHERE e.merged_into = kept AND e.id IN (
    WITH RECURSIVE former (id) AS (
      SELECT g.merged_id FROM rag_entity_merges g WHERE g.kept_id = merged
      UNION SELECT g.merged_id FROM rag_entity_merges g JOIN former f ON g.kept_id = f.id
    )
    SELECT f.id FROM former f
  );
  PERFORM rag_set_current_facts(ARRAY[kept, merged], settled);
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$
