-- The lexemes of a chunk, for the text index. A tsvector holds 1 MB: of a larger chunk its beginning counts.
-- The configuration is named in text, since pg_upgrade refuses columns of type regconfig.
CREATE OR REPLACE FUNCTION rag_text_vector(config text, content text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
BEGIN
  RETURN to_tsvector(
    config::regconfig,
    CASE WHEN octet_length(content) < 262144 THEN content ELSE left(content, 65535) END
  );
END
$$
