-- An error text that is stored: of more than 16,000 characters the first and the last 7,900 with a note of what
-- was cut, for a traceback says the most at its end.
CREATE OR REPLACE FUNCTION rag_job_error(error text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path FROM CURRENT
AS $$
BEGIN
  IF octet_length(error) <= 16000 OR char_length(error) <= 16000 THEN
    RETURN error;
  END IF;
  RETURN left(error, 7900) || E'\n[... ' || (char_length(error) - 15800)::text || E' characters cut ...]\n'
    || right(error, 7900);
END
$$
