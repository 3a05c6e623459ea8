-- For an event that names a chunk of another document: ends the statement.
CREATE OR REPLACE FUNCTION rag_refuse_foreign_chunk(event uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  RAISE EXCEPTION 'chunk event % names a chunk of another document', event
    USING ERRCODE = 'foreign_key_violation', TABLE = 'rag_chunk_events', COLUMN = 'chunk_id',
      HINT = 'An event''s chunk was written with a version of the same document as the event''s version.';
END
$$
