-- Mentions that somebody deletes, or that go with their chunk.
CREATE TRIGGER rag_entity_mentions_deleted
AFTER DELETE ON rag_entity_mentions
REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT WHEN (pg_catalog.current_setting('ragschema.settling', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION rag_mentions_changed()
