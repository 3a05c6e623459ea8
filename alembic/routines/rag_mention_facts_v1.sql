-- Says that a chunk mentions entities and relations: these are locked before, or the rows of others are waited for.
CREATE OR REPLACE FUNCTION rag_mention_facts(chunk uuid, entities uuid[], relations uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  INSERT INTO rag_entity_mentions (chunk_id, entity_id)
  SELECT chunk, n.id FROM pg_catalog.unnest(entities) AS n (id) ORDER BY n.id
  ON CONFLICT DO NOTHING;
  INSERT INTO rag_relation_mentions (chunk_id, relation_id)
  SELECT chunk, n.id FROM pg_catalog.unnest(relations) AS n (id) ORDER BY n.id
  ON CONFLICT DO NOTHING;
  PERFORM rag_set_current_facts(entities, relations);
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$
