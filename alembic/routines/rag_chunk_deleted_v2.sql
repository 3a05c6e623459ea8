-- For a chunk that goes: events that say 'deleted' of it keep their row and lose the pointer. An event of any
-- other type keeps the chunk, through its foreign key.
CREATE OR REPLACE FUNCTION rag_chunk_deleted() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  UPDATE rag_chunk_events SET chunk_id = NULL WHERE chunk_id = OLD.id AND event_type OPERATOR(pg_catalog.=) 'deleted';
  RETURN OLD;
END
$$
