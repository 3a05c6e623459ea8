-- Makes is_current true for exactly the chunks of a document's current version. Locks the document's row.
CREATE OR REPLACE FUNCTION rag_set_current_chunks(document uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  current_version uuid;
  config text;
  manifest uuid[];
  versions uuid[];
BEGIN
  SELECT d.current_version_id, d.text_config INTO current_version, config
  FROM rag_documents d WHERE d.id = document FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = current_version) THEN
    manifest := ARRAY(
      SELECT e.chunk_id FROM rag_chunk_events e
      WHERE e.version_id = current_version AND e.event_type OPERATOR(pg_catalog.<>) 'deleted'
    );
  ELSE
    manifest := ARRAY(SELECT c.id FROM rag_chunks c WHERE c.version_id = current_version);
  END IF;
  -- as arrays: whatever the statistics say, the indexes are read for these, and no table is read whole
  versions := ARRAY(SELECT v.id FROM rag_document_versions v WHERE v.document_id = document);
  UPDATE rag_chunks c SET is_current = false
  WHERE c.version_id = ANY (versions) AND c.is_current AND c.id <> ALL (manifest);
  UPDATE rag_chunks c SET is_current = true, text_config = config
  WHERE c.id = ANY (manifest) AND c.version_id = ANY (versions)
    AND (NOT c.is_current OR c.text_config <> config);
END
$$
