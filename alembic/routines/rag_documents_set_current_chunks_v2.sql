-- Whoever sets a document's current version, deletes or undeletes it: search finds what it should from the commit on.
CREATE CONSTRAINT TRIGGER rag_documents_set_current_chunks
AFTER INSERT OR UPDATE OF current_version_id, text_config, deleted_at ON rag_documents
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION rag_documents_changed()
