-- Whoever makes chunks current, or not: the facts that they mention follow. Publishing says that it sees to them itself,
-- in the setting ragschema.settling, while it marks its chunks.
CREATE CONSTRAINT TRIGGER rag_chunks_settle_facts
AFTER UPDATE OF is_current ON rag_chunks
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (
  OLD.is_current <> NEW.is_current
  AND pg_catalog.current_setting('ragschema.settling', true) IS DISTINCT FROM 'on'
) EXECUTE FUNCTION rag_chunk_facts_changed()
