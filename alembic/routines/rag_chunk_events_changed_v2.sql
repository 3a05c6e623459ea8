-- For events written or deleted of a version that is current already; and no event may name a chunk that was
-- written with another document's version.
CREATE OR REPLACE FUNCTION rag_chunk_events_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  foreign_event uuid;
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT e.id INTO foreign_event
    FROM changed e
    JOIN rag_chunks c ON c.id = e.chunk_id AND c.version_id <> e.version_id
    JOIN rag_document_versions home ON home.id = c.version_id
    JOIN rag_document_versions v ON v.id = e.version_id
    WHERE home.document_id <> v.document_id
    LIMIT 1;
    IF foreign_event IS NOT NULL THEN
      PERFORM rag_refuse_foreign_chunk(foreign_event);
    END IF;
  END IF;
  PERFORM rag_set_current_chunks(d.id)
  FROM (SELECT DISTINCT version_id FROM changed) e
  JOIN rag_documents d ON d.current_version_id = e.version_id;
  RETURN NULL;
END
$$
