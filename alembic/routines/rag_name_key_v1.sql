-- What the spellings of a name have in common: in compatible characters (NFKC, where the encoding is UTF8), in small
-- letters, without characters of no width, each white space as one space, none at the ends.
CREATE OR REPLACE FUNCTION rag_name_key(name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
  key text := name;
BEGIN
  IF pg_catalog.getdatabaseencoding() = 'UTF8' AND pg_catalog.octet_length(key) > pg_catalog.length(key) THEN
    key := pg_catalog.normalize(key, 'NFKC');
    key := pg_catalog.regexp_replace(key, '[\u00ad\u200b\u2060\ufeff]', '', 'g');
    key := pg_catalog.regexp_replace(key, '[\u0085\u1680\u2000-\u200a\u2028\u2029]', ' ', 'g');
  END IF;
  -- First ASCII, whose I is i in Turkish too, then what LC_CTYPE knows, then what C does not.
  key := pg_catalog.lower(pg_catalog.lower(key COLLATE pg_catalog."C") COLLATE pg_catalog."default");
  key := CASE
    WHEN pg_catalog.getdatabaseencoding() = 'UTF8' AND pg_catalog.octet_length(key) > pg_catalog.length(key)
      AND pg_catalog.lower(pg_catalog.chr(201)) = pg_catalog.chr(201)
    THEN rag_small_letters(key) ELSE key END;
  RETURN pg_catalog.btrim(pg_catalog.regexp_replace(key, '[\x01-\x20\x7f]+', ' ', 'g'), ' ');
END
$$
