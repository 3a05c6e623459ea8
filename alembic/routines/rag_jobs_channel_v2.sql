-- The channel of this schema's jobs, so that schemas of one database do not wake each other's workers. A name
-- longer than 63 bytes is cut, as PostgreSQL cuts names: at worst two schemas share a channel.
CREATE OR REPLACE FUNCTION rag_jobs_channel() RETURNS text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
BEGIN
  RETURN ('rag_jobs_' || current_schema()::text)::name::text;
END
$$
