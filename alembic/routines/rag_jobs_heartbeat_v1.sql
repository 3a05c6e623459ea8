-- Prolong the lease of a job, and keep how far it has come (NULL keeps what was there). False tells the worker to
-- stop: the job is cancelled, or another worker has claimed it since. Touches no indexed column: a HOT update.
-- lease_expires_at says that it is processing: status would tempt the planner to the index of all that are.
CREATE OR REPLACE FUNCTION rag_jobs_heartbeat(
  id uuid,
  attempt integer,
  lease interval DEFAULT '5 minutes',
  progress jsonb DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
  beat_at timestamptz := clock_timestamp();
BEGIN
  IF lease IS NULL OR lease <= interval '0' THEN
    RAISE EXCEPTION 'a heartbeat needs a lease above zero' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  UPDATE rag_jobs AS j SET
    lease_expires_at = beat_at + lease,
    progress = coalesce(rag_jobs_heartbeat.progress, j.progress),
    updated_at = beat_at
  WHERE j.id = rag_jobs_heartbeat.id AND j.attempts = attempt AND j.lease_expires_at IS NOT NULL;
  RETURN FOUND;
END
$$
