-- For events written or deleted of a version that is current already; and no event may name a chunk that was
-- written with another document's version.
-- Event by event, by the keys of what it names: a session keeps the plans of this function, and after a document of
-- thousands of events it would read all versions and all chunks for the next event. OFFSET 0 keeps the order.
CREATE OR REPLACE FUNCTION rag_chunk_events_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
DECLARE
  foreign_event uuid;
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT e.id INTO foreign_event
    FROM changed e
    CROSS JOIN LATERAL (
      SELECT c.version_id FROM rag_chunks c WHERE c.id = e.chunk_id AND c.version_id <> e.version_id OFFSET 0
    ) AS c
    CROSS JOIN LATERAL (
      SELECT FROM rag_document_versions home
      JOIN rag_document_versions v ON v.id = e.version_id AND v.document_id <> home.document_id
      WHERE home.id = c.version_id OFFSET 0
    ) AS other
    LIMIT 1;
    IF foreign_event IS NOT NULL THEN
      PERFORM rag_refuse_foreign_chunk(foreign_event);
    END IF;
  END IF;
  PERFORM rag_set_current_chunks(d.id)
  FROM (SELECT DISTINCT version_id FROM changed) AS e
  CROSS JOIN LATERAL (SELECT d.id FROM rag_documents d WHERE d.current_version_id = e.version_id OFFSET 0) AS d;
  RETURN NULL;
END
$$
