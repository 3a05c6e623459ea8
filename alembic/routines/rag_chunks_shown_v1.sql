-- Chunks of a deleted document that somebody makes current.
CREATE TRIGGER rag_chunks_shown
AFTER UPDATE OF is_current ON rag_chunks
FOR EACH ROW WHEN (NEW.is_current AND NOT OLD.is_current) EXECUTE FUNCTION rag_chunk_shown()
