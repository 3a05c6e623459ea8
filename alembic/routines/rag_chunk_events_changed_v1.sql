-- For events written or deleted of a version that is current already.
CREATE OR REPLACE FUNCTION rag_chunk_events_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM rag_set_current_chunks(d.id)
  FROM (SELECT DISTINCT version_id FROM changed) e
  JOIN rag_documents d ON d.current_version_id = e.version_id;
  RETURN NULL;
END
$$
