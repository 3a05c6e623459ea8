-- For a document whose current version or text configuration was set, at the end of the transaction: whatever
-- order its version, chunks and events were written in.
CREATE OR REPLACE FUNCTION rag_documents_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  IF TG_OP = 'UPDATE' OR NEW.current_version_id IS NOT NULL THEN
    PERFORM rag_set_current_chunks(NEW.id);
  END IF;
  RETURN NULL;
END
$$
