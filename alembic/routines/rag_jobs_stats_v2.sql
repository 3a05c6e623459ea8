-- One row for each type that has jobs waiting, processing or failed: how many; of those that wait, how many are due
-- and how long the first has been; of those that process, how many have run out of their lease. Reads the small
-- indexes of what is not completed, never the completed rows.
CREATE OR REPLACE FUNCTION rag_jobs_stats() RETURNS TABLE (
  job_type text,
  waiting bigint,
  due bigint,
  processing bigint,
  expired bigint,
  failed bigint,
  oldest_age interval
)
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  seen_at timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
    SELECT counted.job_type, sum(counted.waiting)::bigint, sum(counted.due)::bigint, sum(counted.processing)::bigint,
      sum(counted.expired)::bigint, sum(counted.failed)::bigint, seen_at - min(counted.oldest)
    FROM (
      SELECT j.job_type, count(*) AS waiting, count(*) FILTER (WHERE j.run_at <= seen_at) AS due,
        0 AS processing, 0 AS expired, 0 AS failed, min(j.run_at) FILTER (WHERE j.run_at <= seen_at) AS oldest
      FROM rag_jobs j WHERE j.status OPERATOR(pg_catalog.=) 'new' GROUP BY j.job_type
      UNION ALL
      SELECT j.job_type, 0, 0, count(*), count(*) FILTER (WHERE j.lease_expires_at <= seen_at), 0, NULL
      FROM rag_jobs j WHERE j.status OPERATOR(pg_catalog.=) 'processing' GROUP BY j.job_type
      UNION ALL
      SELECT j.job_type, 0, 0, 0, 0, count(*), NULL
      FROM rag_jobs j WHERE j.status OPERATOR(pg_catalog.=) 'failed' GROUP BY j.job_type
    ) AS counted
    GROUP BY counted.job_type
    ORDER BY counted.job_type;
END
$$
