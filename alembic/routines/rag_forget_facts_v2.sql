-- Takes from the graph what chunks say that are about to be deleted: their mentions and extractions; the entities and
-- relations that no other chunk mentions and nobody imported; and the names and relations of entities that were merged,
-- where all chunks that mentioned them by those, or said these, are gone. Locks the chunks first, then what they mention,
-- in the order of ids.
CREATE OR REPLACE FUNCTION rag_forget_facts(chunks uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  entities uuid[];
  relations uuid[];
BEGIN
  PERFORM FROM rag_chunks c WHERE c.id = ANY (chunks) ORDER BY c.id FOR UPDATE;
  entities := ARRAY(SELECT DISTINCT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = ANY (chunks));
  relations := ARRAY(SELECT DISTINCT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = ANY (chunks));
  DELETE FROM rag_extractions x WHERE x.chunk_id = ANY (chunks);
  IF pg_catalog.cardinality(entities) = 0 AND pg_catalog.cardinality(relations) = 0 THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  PERFORM FROM rag_entities e WHERE e.id = ANY (entities) OR e.merged_into = ANY (entities) ORDER BY e.id FOR UPDATE;
  PERFORM FROM rag_relations r WHERE r.id = ANY (relations) ORDER BY r.id FOR UPDATE;
  DELETE FROM rag_entity_mentions m WHERE m.chunk_id = ANY (chunks);
  DELETE FROM rag_relation_mentions m WHERE m.chunk_id = ANY (chunks);
  PERFORM rag_set_current_facts(entities, relations);
  DELETE FROM rag_relations r
  WHERE r.id = ANY (relations) AND NOT r.is_imported
    AND NOT EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id);
  DELETE FROM rag_relations r
  WHERE r.id IN (
      SELECT moved.id
      FROM rag_entities t
      JOIN rag_entity_merges g ON g.merged_id = t.id
      CROSS JOIN LATERAL ROWS FROM (pg_catalog.jsonb_to_recordset(g.moved -> 'relations'::text) AS (
        id uuid, is_imported boolean, chunks uuid[]
      )) AS moved
      WHERE t.merged_into = ANY (entities) AND NOT moved.is_imported
        AND moved.chunks OPERATOR(pg_catalog.&&) rag_forget_facts.chunks
        AND NOT EXISTS (
          SELECT FROM rag_chunks c WHERE c.id = ANY (moved.chunks) AND c.id <> ALL (rag_forget_facts.chunks)
        )
    )
    AND NOT r.is_imported
    AND NOT EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id);
  DELETE FROM rag_entities t
  WHERE t.merged_into = ANY (entities) AND EXISTS (
    SELECT FROM rag_entity_merges g
    WHERE g.merged_id = t.id AND NOT (g.moved -> 'is_imported'::text)::boolean AND NOT EXISTS (
      SELECT FROM pg_catalog.jsonb_array_elements_text(g.moved -> 'chunks'::text) AS said (chunk)
      JOIN rag_chunks c ON c.id = said.chunk::uuid AND c.id <> ALL (chunks)
    )
  );
  DELETE FROM rag_entities e
  WHERE e.id = ANY (entities) AND NOT e.is_imported
    AND NOT EXISTS (SELECT FROM rag_entity_mentions m WHERE m.entity_id = e.id)
    AND NOT EXISTS (
      SELECT FROM rag_relations r
      WHERE (r.source_id = e.id OR r.target_id = e.id)
        AND (r.is_imported OR EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id))
    );
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$
