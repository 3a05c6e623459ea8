-- For a chunk that goes: events that say 'deleted' of it keep their row and lose the pointer. An event of any
-- other type keeps the chunk, through its foreign key. Events of a version that goes in the same statement go with it,
-- and are left alone: the foreign key of an event that this transaction has written would miss the version at once.
CREATE OR REPLACE FUNCTION rag_chunk_deleted() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  UPDATE rag_chunk_events e SET chunk_id = NULL
  WHERE e.chunk_id = OLD.id AND e.event_type OPERATOR(pg_catalog.=) 'deleted'
    AND (SELECT v.id FROM rag_document_versions v WHERE v.id = e.version_id) IS NOT NULL;
  RETURN OLD;
END
$$
