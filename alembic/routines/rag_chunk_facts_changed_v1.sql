-- For a chunk that search finds from now on, or finds no more, at the end of the transaction: when all chunks are as
-- they will be, and their locks are taken.
CREATE OR REPLACE FUNCTION rag_chunk_facts_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
BEGIN
  IF EXISTS (SELECT FROM rag_entity_mentions m WHERE m.chunk_id = NEW.id)
    OR EXISTS (SELECT FROM rag_relation_mentions m WHERE m.chunk_id = NEW.id)
  THEN
    PERFORM rag_settle_facts(ARRAY[NEW.id], '{}'::uuid[], '{}'::uuid[]);
  END IF;
  RETURN NULL;
END
$$
