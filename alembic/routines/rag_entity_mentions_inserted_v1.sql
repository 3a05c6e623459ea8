-- Mentions that somebody writes; record_extraction sees to its own.
CREATE TRIGGER rag_entity_mentions_inserted
AFTER INSERT ON rag_entity_mentions
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT WHEN (pg_catalog.current_setting('ragschema.settling', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION rag_mentions_changed()
