-- For a document that was pointed at a version, deleted or undeleted, at the end of the transaction: in whatever order
-- its rows were written. Who has marked a version's chunks says so in the setting ragschema.marked, for the transaction:
-- until this does its work for any document, because what was marked before may be so no more. Of a document that is or
-- was deleted nobody is believed: a release that does not know of it marks the chunks of one as of any other.
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
    AND NEW.deleted_at IS NULL AND OLD.deleted_at IS NULL
    AND NEW.current_version_id::text = pg_catalog.current_setting('ragschema.marked', true)
  THEN
    RETURN NULL;
  END IF;
  PERFORM rag_set_current_chunks(NEW.id);
  PERFORM pg_catalog.set_config('ragschema.marked', '', true);
  RETURN NULL;
END
$$
