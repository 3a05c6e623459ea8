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
#variable_conflict use_column
DECLARE
  enqueued_at timestamptz := clock_timestamp();
  notifying text := current_setting('rag_jobs.notify', true);
  new_id uuid;
BEGIN
  IF dedupe_key IS NOT NULL OR octet_length(job_type) > 2000 THEN
    RETURN rag_jobs_enqueue_many(
      ARRAY[job_type], ARRAY[payload], ARRAY[priority], ARRAY[run_at], ARRAY[max_attempts], ARRAY[dedupe_key], notify
    );
  END IF;
  PERFORM set_config('rag_jobs.notify', 'off', true);  -- the trigger notifies for those who do not call this
  INSERT INTO rag_jobs (job_type, payload, priority, run_at, max_attempts, created_at, updated_at)
  VALUES (
    rag_jobs_enqueue.job_type, rag_jobs_enqueue.payload, coalesce(rag_jobs_enqueue.priority, 0),
    coalesce(rag_jobs_enqueue.run_at, enqueued_at), coalesce(rag_jobs_enqueue.max_attempts, 10),
    enqueued_at, enqueued_at
  )
  RETURNING id INTO new_id;
  PERFORM set_config('rag_jobs.notify', coalesce(notifying, ''), true);
  IF notify AND notifying IS DISTINCT FROM 'off' AND coalesce(rag_jobs_enqueue.run_at <= enqueued_at, true) THEN
    PERFORM pg_notify(rag_jobs_channel(), job_type);
  END IF;
  RETURN new_id;
END
$$
