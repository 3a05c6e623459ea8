-- Makes is_current true for exactly the chunks of a document's current version; of a deleted document for none. Locks
-- the document's row.
-- Its tables are read by their indexes, and its lists compared as sets, whatever the statistics say: a session keeps
-- the plans of this function, also those that it made for a document unlike the next one. So they are made once: to
-- plan it for each document of a load cost a third of what the load did.
CREATE OR REPLACE FUNCTION rag_set_current_chunks(document uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  current_version uuid;
  config text;
  manifest uuid[];
  versions uuid[];
BEGIN
  SELECT CASE WHEN d.deleted_at IS NULL THEN d.current_version_id END, d.text_config INTO current_version, config
  FROM rag_documents d WHERE d.id = document FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = current_version) THEN
    manifest := ARRAY(
      SELECT e.chunk_id FROM rag_chunk_events e
      WHERE e.version_id = current_version AND e.event_type OPERATOR(pg_catalog.<>) 'deleted'
    );
  ELSE
    manifest := ARRAY(SELECT c.id FROM rag_chunks c WHERE c.version_id = current_version);
  END IF;
  versions := ARRAY(SELECT v.id FROM rag_document_versions v WHERE v.document_id = document);
  UPDATE rag_chunks c SET is_current = false
  WHERE c.is_current AND c.id = ANY (ARRAY(
    SELECT w.id FROM rag_chunks w WHERE w.version_id = ANY (versions) AND w.is_current
    EXCEPT SELECT pg_catalog.unnest(manifest)
  ));
  UPDATE rag_chunks c SET is_current = true, text_config = config
  WHERE (NOT c.is_current OR c.text_config <> config) AND c.id = ANY (ARRAY(
    SELECT w.id FROM rag_chunks w
    WHERE w.version_id = ANY (versions) AND (NOT w.is_current OR w.text_config <> config)
    INTERSECT SELECT pg_catalog.unnest(manifest)
  ));
END
$$
