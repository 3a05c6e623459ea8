-- For a chunk written to a version that is current already and has no events: the chunk is in its manifest.
CREATE OR REPLACE FUNCTION rag_chunk_inserted() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  UPDATE rag_chunks c SET is_current = true, text_config = d.text_config
  FROM rag_documents d
  WHERE d.current_version_id = NEW.version_id AND c.id = NEW.id
    AND NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = NEW.version_id);
  RETURN NULL;
END
$$
