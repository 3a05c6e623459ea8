-- Versions are immutable but for the title and url that citations show, and the metadata that searches filter by:
-- whatever columns they have.
CREATE TRIGGER rag_document_versions_immutable
BEFORE UPDATE ON rag_document_versions
FOR EACH ROW WHEN (
  to_jsonb(NEW) - '{title,url,metadata}'::text[] IS DISTINCT FROM to_jsonb(OLD) - '{title,url,metadata}'::text[]
)
EXECUTE FUNCTION rag_refuse_version_change()
