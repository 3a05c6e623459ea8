-- Events that somebody corrects. A chunk that goes takes the pointer of its 'deleted' events with it: not this.
CREATE TRIGGER rag_chunk_events_updated
AFTER UPDATE OF version_id, chunk_id, event_type ON rag_chunk_events
FOR EACH ROW WHEN (
  OLD.version_id <> NEW.version_id
  OR OLD.event_type <> NEW.event_type
  OR NEW.chunk_id IS NOT NULL AND OLD.chunk_id IS DISTINCT FROM NEW.chunk_id
) EXECUTE FUNCTION rag_chunk_event_updated()
