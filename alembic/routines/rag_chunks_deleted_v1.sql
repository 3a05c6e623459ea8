-- Lets an old version be deleted although the next one says 'deleted' of its chunks.
CREATE TRIGGER rag_chunks_deleted
BEFORE DELETE ON rag_chunks
FOR EACH ROW EXECUTE FUNCTION rag_chunk_deleted()
