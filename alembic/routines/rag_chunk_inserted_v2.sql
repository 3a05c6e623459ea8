-- For a chunk written to a version that is current already and has no events: the chunk is in its manifest, and search
-- finds it unless the document is deleted. Locks the document's row, or one that is being deleted would keep the chunk.
CREATE OR REPLACE FUNCTION rag_chunk_inserted() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
DECLARE
  config text;
BEGIN
  SELECT d.text_config INTO config FROM rag_documents d
  WHERE d.current_version_id = NEW.version_id AND d.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = NEW.version_id)
  FOR NO KEY UPDATE;
  IF config IS NOT NULL THEN
    UPDATE rag_chunks c SET is_current = true, text_config = config WHERE c.id = NEW.id;
  END IF;
  RETURN NULL;
END
$$
