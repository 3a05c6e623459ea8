-- Events that come after the document was pointed at their version.
CREATE TRIGGER rag_chunk_events_inserted
AFTER INSERT ON rag_chunk_events
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION rag_chunk_events_changed()
