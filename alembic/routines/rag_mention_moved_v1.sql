-- For a mention that was given another chunk or another fact: the former and the new fact are current, or not.
CREATE OR REPLACE FUNCTION rag_mention_moved() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  IF TG_TABLE_NAME = 'rag_entity_mentions' THEN
    PERFORM rag_set_current_facts(ARRAY[OLD.entity_id, NEW.entity_id], '{}'::uuid[]);
  ELSE
    PERFORM rag_set_current_facts('{}'::uuid[], ARRAY[OLD.relation_id, NEW.relation_id]);
  END IF;
  RETURN NULL;
END
$$
