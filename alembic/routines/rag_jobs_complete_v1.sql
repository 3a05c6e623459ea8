-- Complete a job; false where the attempt is not the worker's any more. See rag_jobs_complete_many.
CREATE OR REPLACE FUNCTION rag_jobs_complete(id uuid, attempt integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM rag_jobs_complete_many(ARRAY[id], ARRAY[attempt]);
  RETURN FOUND;
END
$$
