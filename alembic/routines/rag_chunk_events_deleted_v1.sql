-- Events of a current version that somebody deletes.
CREATE TRIGGER rag_chunk_events_deleted
AFTER DELETE ON rag_chunk_events
REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION rag_chunk_events_changed()
