-- Chunks that come after the document was pointed at their version.
CREATE TRIGGER rag_chunks_inserted
AFTER INSERT ON rag_chunks
FOR EACH ROW WHEN (NOT NEW.is_current) EXECUTE FUNCTION rag_chunk_inserted()
