-- Delete finished jobs, the oldest first, at most batch of them, passing over locked ones; return how many. The
-- caller repeats it, each in a transaction of its own, until it returns less than batch. A dry run deletes nothing
-- and counts all. With a status only those that are completed, or failed.
CREATE OR REPLACE FUNCTION rag_jobs_prune(
  older_than interval,
  batch integer DEFAULT 10000,
  dry_run boolean DEFAULT false,
  status job_status DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
DECLARE
  finished_before timestamptz := clock_timestamp() - older_than;
  pruned bigint;
BEGIN
  IF dry_run THEN
    SELECT count(*) FROM rag_jobs AS j INTO pruned
    WHERE j.finished_at < finished_before
      AND (rag_jobs_prune.status IS NULL OR j.status OPERATOR(pg_catalog.=) rag_jobs_prune.status);
  ELSE
    DELETE FROM rag_jobs AS d WHERE d.id = ANY (ARRAY(
      SELECT j.id FROM rag_jobs AS j
      WHERE j.finished_at < finished_before
        AND (rag_jobs_prune.status IS NULL OR j.status OPERATOR(pg_catalog.=) rag_jobs_prune.status)
      ORDER BY j.finished_at LIMIT batch
      FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS pruned = ROW_COUNT;
  END IF;
  RETURN pruned;
END
$$
