-- For mentions that somebody wrote or deleted, or that went with their chunk: what they are of is current, or not.
CREATE OR REPLACE FUNCTION rag_mentions_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  IF TG_TABLE_NAME = 'rag_entity_mentions' THEN
    PERFORM rag_set_current_facts(ARRAY(SELECT DISTINCT m.entity_id FROM changed m), '{}'::uuid[]);
  ELSE
    PERFORM rag_set_current_facts('{}'::uuid[], ARRAY(SELECT DISTINCT m.relation_id FROM changed m));
  END IF;
  RETURN NULL;
END
$$
