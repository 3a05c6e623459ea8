-- Makes is_current true for exactly the chunks of a document's current version. Locks the document's row.
CREATE OR REPLACE FUNCTION rag_set_current_chunks(document uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  current_version uuid;
  config text;
  manifest uuid[];
BEGIN
  SELECT d.current_version_id, d.text_config INTO current_version, config
  FROM rag_documents d WHERE d.id = document FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = current_version) THEN
    manifest := ARRAY(
      SELECT e.chunk_id FROM rag_chunk_events e
      WHERE e.version_id = current_version AND e.event_type <> 'deleted'
    );
  ELSE
    manifest := ARRAY(SELECT c.id FROM rag_chunks c WHERE c.version_id = current_version);
  END IF;
  UPDATE rag_chunks c SET is_current = false
  FROM rag_document_versions v
  WHERE v.document_id = document AND c.version_id = v.id AND c.is_current AND c.id <> ALL (manifest);
  UPDATE rag_chunks c SET is_current = true, text_config = config
  FROM rag_document_versions v
  WHERE v.document_id = document AND v.id = c.version_id AND c.id = ANY (manifest)
    AND (NOT c.is_current OR c.text_config <> config);
END
$$
