-- For chunks whose is_current has changed, and for new ones that are copies of others: these inherit what was read in
-- the originals, and then every entity and relation that one of them mentions is current, or not, as it should be.
-- An original is locked against who records what an extractor read in it; extractions are copied before mentions, so
-- that a copy without all of its facts is never said to have been read.
CREATE OR REPLACE FUNCTION rag_settle_facts(changed uuid[], copies uuid[], originals uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  entities uuid[];
  relations uuid[];
BEGIN
  IF pg_catalog.cardinality(copies) > 0 THEN
    PERFORM FROM rag_chunks c WHERE c.id = ANY (originals) ORDER BY c.id FOR SHARE;
  END IF;
  entities := ARRAY(
    SELECT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = ANY (changed)
    UNION SELECT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = ANY (originals)
  );
  relations := ARRAY(
    SELECT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = ANY (changed)
    UNION SELECT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = ANY (originals)
  );
  IF pg_catalog.cardinality(copies) > 0 THEN
    PERFORM FROM rag_entities e WHERE e.id = ANY (entities) ORDER BY e.id FOR NO KEY UPDATE;
    PERFORM FROM rag_relations r WHERE r.id = ANY (relations) ORDER BY r.id FOR NO KEY UPDATE;
    PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
    INSERT INTO rag_extractions (chunk_id, extractor_version, created_at)
    SELECT n.copy, x.extractor_version, x.created_at
    FROM ROWS FROM (pg_catalog.unnest(copies), pg_catalog.unnest(originals)) AS n (copy, original)
    CROSS JOIN LATERAL (
      SELECT x.extractor_version, x.created_at FROM rag_extractions x WHERE x.chunk_id = n.original OFFSET 0
    ) AS x
    ON CONFLICT DO NOTHING;
    INSERT INTO rag_entity_mentions (chunk_id, entity_id)
    SELECT n.copy, m.entity_id
    FROM ROWS FROM (pg_catalog.unnest(copies), pg_catalog.unnest(originals)) AS n (copy, original)
    CROSS JOIN LATERAL (
      SELECT m.entity_id FROM rag_entity_mentions m WHERE m.chunk_id = n.original OFFSET 0
    ) AS m
    ON CONFLICT DO NOTHING;
    INSERT INTO rag_relation_mentions (chunk_id, relation_id)
    SELECT n.copy, m.relation_id
    FROM ROWS FROM (pg_catalog.unnest(copies), pg_catalog.unnest(originals)) AS n (copy, original)
    CROSS JOIN LATERAL (
      SELECT m.relation_id FROM rag_relation_mentions m WHERE m.chunk_id = n.original OFFSET 0
    ) AS m
    ON CONFLICT DO NOTHING;
    PERFORM pg_catalog.set_config('ragschema.settling', '', true);
  END IF;
  PERFORM rag_set_current_facts(entities, relations);
END
$$
