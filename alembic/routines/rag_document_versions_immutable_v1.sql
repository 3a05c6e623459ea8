-- Versions are immutable but for the title and url that citations show.
CREATE TRIGGER rag_document_versions_immutable
BEFORE UPDATE ON rag_document_versions
FOR EACH ROW WHEN (
  (NEW.id, NEW.document_id, NEW.version_number, NEW.source_hash, NEW.chunker_version, NEW.embedder_version,
    NEW.created_at)
  IS DISTINCT FROM
  (OLD.id, OLD.document_id, OLD.version_number, OLD.source_hash, OLD.chunker_version, OLD.embedder_version,
    OLD.created_at)
)
EXECUTE FUNCTION rag_refuse_version_change()
