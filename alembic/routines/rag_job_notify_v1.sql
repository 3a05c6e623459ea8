-- Wakes the workers that listen, for jobs that are inserted by hand; PostgreSQL folds what is alike within one
-- transaction, and with the setting rag_jobs.notify = off nothing is sent.
CREATE OR REPLACE FUNCTION rag_job_notify() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM pg_notify(rag_jobs_channel(), NEW.job_type);
  RETURN NULL;
END
$$
