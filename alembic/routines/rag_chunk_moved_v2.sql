-- For a chunk that was given to another version: one of the same document, whose events may go on naming it. Where that
-- version, or the one before, is current and has no events, it lists the chunks written with it: these are others now.
CREATE OR REPLACE FUNCTION rag_chunk_moved() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
DECLARE
  foreign_event uuid;
BEGIN
  PERFORM rag_set_current_chunks(d.id)
  FROM rag_documents d
  WHERE d.current_version_id IN (OLD.version_id, NEW.version_id)
    AND NOT EXISTS (SELECT FROM rag_chunk_events e WHERE e.version_id = d.current_version_id);
  IF EXISTS (
    SELECT FROM rag_document_versions home
    JOIN rag_document_versions former ON former.id = OLD.version_id
    WHERE home.id = NEW.version_id AND home.document_id = former.document_id
  ) THEN
    RETURN NULL;
  END IF;
  SELECT e.id INTO foreign_event
  FROM rag_chunk_events e
  JOIN rag_document_versions v ON v.id = e.version_id
  JOIN rag_document_versions home ON home.id = NEW.version_id
  WHERE e.chunk_id = NEW.id AND v.document_id <> home.document_id
  LIMIT 1;
  IF foreign_event IS NOT NULL THEN
    PERFORM rag_refuse_foreign_chunk(foreign_event);
  END IF;
  RETURN NULL;
END
$$
