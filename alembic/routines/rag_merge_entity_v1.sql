-- Merges an entity into another one, both living: its mentions and relations are the kept one's from now on, and the log
-- says which they were, by their ids alone. Its name and aliases stay with it and lead to the kept one. A relation of it
-- that had evidence has a twin of the kept one, and stays, not current, for the merge to be undone.
CREATE OR REPLACE FUNCTION rag_merge_entity(kept uuid, merged uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
DECLARE
  relation record;
  twin record;
  is_made boolean;
  chunks uuid[];
  relations jsonb := '[]';
  settled uuid[] := '{}';
BEGIN
  PERFORM pg_catalog.set_config('ragschema.settling', 'on', true);
  PERFORM FROM rag_entities e WHERE e.id IN (kept, merged) OR e.merged_into = merged ORDER BY e.id FOR UPDATE;
  FOR relation IN
    SELECT r.id, r.relation_type, r.is_imported, r.weight, r.description, r.properties,
      CASE WHEN r.source_id = merged THEN kept ELSE r.source_id END AS source_id,
      CASE WHEN r.target_id = merged THEN kept ELSE r.target_id END AS target_id
    FROM rag_relations r
    WHERE (r.source_id = merged OR r.target_id = merged)
      AND (r.is_imported OR EXISTS (SELECT FROM rag_relation_mentions m WHERE m.relation_id = r.id))
    ORDER BY r.id FOR UPDATE
  LOOP
    INSERT INTO rag_relations (source_id, relation_type, target_id, weight, description, properties)
    VALUES (relation.source_id, relation.relation_type, relation.target_id, relation.weight, relation.description,
      relation.properties)
    ON CONFLICT DO NOTHING;
    is_made := FOUND;
    SELECT r.id, r.is_imported INTO twin FROM rag_relations r
    WHERE r.source_id = relation.source_id AND r.relation_type = relation.relation_type
      AND r.target_id = relation.target_id
    FOR UPDATE;
    chunks := ARRAY(SELECT m.chunk_id FROM rag_relation_mentions m WHERE m.relation_id = relation.id);
    relations := relations OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
      'id', relation.id, 'is_imported', relation.is_imported, 'twin', twin.id, 'is_twin_made', is_made,
      'is_twin_imported', twin.is_imported, 'chunks', pg_catalog.to_jsonb(chunks), 'shared', pg_catalog.to_jsonb(ARRAY(
        SELECT m.chunk_id FROM rag_relation_mentions m WHERE m.relation_id = twin.id AND m.chunk_id = ANY (chunks)
      ))
    );
    INSERT INTO rag_relation_mentions (chunk_id, relation_id)
    SELECT c.id, twin.id FROM pg_catalog.unnest(chunks) AS c (id) ON CONFLICT DO NOTHING;
    DELETE FROM rag_relation_mentions m WHERE m.relation_id = relation.id;
    UPDATE rag_relations r SET is_imported = r.id = twin.id
    WHERE relation.is_imported AND r.id IN (relation.id, twin.id);
    settled := settled OPERATOR(pg_catalog.||) ARRAY[relation.id, twin.id];
  END LOOP;
  chunks := ARRAY(SELECT m.chunk_id FROM rag_entity_mentions m WHERE m.entity_id = merged);
  INSERT INTO rag_entity_merges (kept_id, merged_id, moved)
  SELECT kept, merged, pg_catalog.jsonb_build_object(
    'is_imported', m.is_imported, 'is_kept_imported', k.is_imported, 'chunks', pg_catalog.to_jsonb(chunks),
    'shared', pg_catalog.to_jsonb(ARRAY(
      SELECT m.chunk_id FROM rag_entity_mentions m WHERE m.entity_id = kept AND m.chunk_id = ANY (chunks)
    )),
    'relations', relations
  )
  FROM rag_entities k JOIN rag_entities m ON k.id = kept AND m.id = merged;
  INSERT INTO rag_entity_mentions (chunk_id, entity_id)
  SELECT c.id, kept FROM pg_catalog.unnest(chunks) AS c (id) ON CONFLICT DO NOTHING;
  DELETE FROM rag_entity_mentions m WHERE m.entity_id = merged;
  UPDATE rag_entities e SET is_imported = true
  WHERE e.id = kept AND EXISTS (SELECT FROM rag_entities m WHERE m.id = merged AND m.is_imported);
  UPDATE rag_entities e SET merged_into = kept, is_current = false, is_imported = false
  WHERE e.id = merged OR e.merged_into = merged;
  PERFORM rag_set_current_facts(ARRAY[kept], settled);
  PERFORM pg_catalog.set_config('ragschema.settling', '', true);
END
$$
