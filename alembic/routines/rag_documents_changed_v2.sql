-- For a document whose current version or text configuration was set, at the end of the transaction: whatever
-- order its version, chunks and events were written in. Who has marked a version's chunks says so in the setting
-- ragschema.marked, for the transaction: until this does its work for any document, because what was marked before
-- may be so no more.
CREATE OR REPLACE FUNCTION rag_documents_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.current_version_id IS NULL THEN
      RETURN NULL;
    END IF;
  ELSIF NEW.text_config = OLD.text_config
    AND NEW.current_version_id::text = pg_catalog.current_setting('ragschema.marked', true)
  THEN
    RETURN NULL;
  END IF;
  PERFORM rag_set_current_chunks(NEW.id);
  PERFORM pg_catalog.set_config('ragschema.marked', '', true);
  RETURN NULL;
END
$$
