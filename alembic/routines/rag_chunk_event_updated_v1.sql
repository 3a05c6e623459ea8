-- For an event that was given another chunk, version or type: the same rules as for one that is written.
CREATE OR REPLACE FUNCTION rag_chunk_event_updated() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  IF NEW.chunk_id IS NOT NULL AND EXISTS (
    SELECT FROM rag_chunks c
    JOIN rag_document_versions home ON home.id = c.version_id
    JOIN rag_document_versions v ON v.id = NEW.version_id
    WHERE c.id = NEW.chunk_id AND home.document_id <> v.document_id
  ) THEN
    PERFORM rag_refuse_foreign_chunk(NEW.id);
  END IF;
  PERFORM rag_set_current_chunks(d.id)
  FROM rag_documents d WHERE d.current_version_id IN (OLD.version_id, NEW.version_id);
  RETURN NULL;
END
$$
