-- Put a job into the queue, in the caller's transaction; return its id. A job of the same type and key that
-- waits takes the new payload, with all its attempts; one that runs is run again afterwards, with the newest.
-- Without run_at it is due now, and a waiting one keeps its place. No notification when it is due later.
CREATE OR REPLACE FUNCTION rag_jobs_enqueue(
  job_type text,
  payload jsonb DEFAULT '{}',
  priority integer DEFAULT 0,
  run_at timestamptz DEFAULT NULL,
  max_attempts integer DEFAULT 10,
  dedupe_key text DEFAULT NULL,
  notify boolean DEFAULT true
) RETURNS uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  RETURN rag_jobs_enqueue_many(
    ARRAY[job_type], ARRAY[payload], ARRAY[priority], ARRAY[run_at], ARRAY[max_attempts], ARRAY[dedupe_key], notify
  );
END
$$
