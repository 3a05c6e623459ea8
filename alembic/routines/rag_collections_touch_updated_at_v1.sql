-- Keeps updated_at.
CREATE TRIGGER rag_collections_touch_updated_at
BEFORE UPDATE ON rag_collections
FOR EACH ROW WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) EXECUTE FUNCTION rag_touch_updated_at()
