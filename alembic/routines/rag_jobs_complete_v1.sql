-- Complete a job; false where the attempt is not the worker's any more. One that was enqueued again meanwhile waits
-- again, with the newest payload and all its attempts.
-- lease_expires_at says that it is processing: status would tempt the planner to the index of all that are.
CREATE OR REPLACE FUNCTION rag_jobs_complete(id uuid, attempt integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  completed_at timestamptz := clock_timestamp();
BEGIN
  UPDATE rag_jobs AS j SET
    status = 'completed',
    finished_at = completed_at,
    lease_expires_at = NULL,
    error_message = NULL,
    updated_at = completed_at
  WHERE j.id = rag_jobs_complete.id AND j.attempts = attempt AND j.lease_expires_at IS NOT NULL AND NOT j.enqueued_again;
  IF FOUND THEN
    RETURN true;
  END IF;
  PERFORM rag_jobs_complete_many(ARRAY[rag_jobs_complete.id], ARRAY[attempt]);
  RETURN FOUND;
END
$$
