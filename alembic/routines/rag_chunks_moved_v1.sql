-- Pruning gives chunks that kept versions share to the newest of these.
CREATE TRIGGER rag_chunks_moved
AFTER UPDATE OF version_id ON rag_chunks
FOR EACH ROW WHEN (OLD.version_id <> NEW.version_id) EXECUTE FUNCTION rag_chunk_moved()
