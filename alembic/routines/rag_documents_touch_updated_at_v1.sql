-- Keeps updated_at.
CREATE TRIGGER rag_documents_touch_updated_at
BEFORE UPDATE ON rag_documents
FOR EACH ROW WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) EXECUTE FUNCTION rag_touch_updated_at()
