-- For a chunk that became current by an UPDATE: not of a deleted document. A release that does not know of deletion
-- shows the chunks of a version that it activates, and where that is the current one nothing else tells of it.
CREATE OR REPLACE FUNCTION rag_chunk_shown() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
BEGIN
  UPDATE rag_chunks c SET is_current = false
  WHERE c.id = NEW.id AND c.is_current AND EXISTS (
    SELECT FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id
    WHERE v.id = NEW.version_id AND d.deleted_at IS NOT NULL
  );
  RETURN NULL;
END
$$
