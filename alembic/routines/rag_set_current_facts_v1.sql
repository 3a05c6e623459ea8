-- Makes is_current true for exactly those of some entities and relations that a current chunk mentions, or that were
-- imported. Locks them in the order of their ids, so that two callers wait rather than deadlock; what it had to wait for
-- is seen by the statements after that. A hub is mentioned most often by old chunks: the newest are asked first.
CREATE OR REPLACE FUNCTION rag_set_current_facts(entities uuid[], relations uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  PERFORM FROM rag_entities e WHERE e.id = ANY (entities) ORDER BY e.id FOR NO KEY UPDATE;
  PERFORM FROM rag_relations r WHERE r.id = ANY (relations) ORDER BY r.id FOR NO KEY UPDATE;
  UPDATE rag_entities e SET is_current = NOT e.is_current
  WHERE e.id = ANY (entities) AND e.is_current <> (e.is_imported OR EXISTS (
    SELECT FROM (
      SELECT m.chunk_id FROM rag_entity_mentions m WHERE m.entity_id = e.id ORDER BY m.chunk_id DESC OFFSET 0
    ) AS m
    WHERE (SELECT c.is_current FROM rag_chunks c WHERE c.id = m.chunk_id)
  ));
  UPDATE rag_relations r SET is_current = NOT r.is_current
  WHERE r.id = ANY (relations) AND r.is_current <> (r.is_imported OR EXISTS (
    SELECT FROM (
      SELECT m.chunk_id FROM rag_relation_mentions m WHERE m.relation_id = r.id ORDER BY m.chunk_id DESC OFFSET 0
    ) AS m
    WHERE (SELECT c.is_current FROM rag_chunks c WHERE c.id = m.chunk_id)
  ));
END
$$
