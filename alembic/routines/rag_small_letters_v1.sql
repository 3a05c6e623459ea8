-- A text in small letters where LC_CTYPE is C, which knows ASCII only: of Latin, Greek, Cyrillic and Armenian, in UTF8.
CREATE OR REPLACE FUNCTION rag_small_letters(content text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
  capitals text;
  smalls text;
BEGIN
  SELECT pg_catalog.string_agg(pg_catalog.chr(capital), ''), pg_catalog.string_agg(pg_catalog.chr(small), '')
  INTO capitals, smalls
  FROM (
    SELECT code, CASE
      WHEN code BETWEEN 192 AND 222 AND code <> 215 THEN code + 32
      WHEN code = 304 THEN 105
      WHEN code = 376 THEN 255
      WHEN code BETWEEN 256 AND 310 OR code BETWEEN 330 AND 374 OR code BETWEEN 416 AND 420
        OR code BETWEEN 478 AND 494 OR code = 500 OR code BETWEEN 504 AND 542 OR code BETWEEN 546 AND 562
        OR code BETWEEN 1120 AND 1152 OR code BETWEEN 1162 AND 1214 OR code BETWEEN 1232 AND 1326
        OR code BETWEEN 7680 AND 7828 OR code BETWEEN 7840 AND 7934 THEN code + 1 - code % 2
      WHEN code BETWEEN 313 AND 327 OR code BETWEEN 377 AND 381 OR code = 431 OR code BETWEEN 461 AND 475
        OR code BETWEEN 1217 AND 1229 THEN code + code % 2
      WHEN code = 7838 THEN 223
      WHEN code = 902 THEN 940
      WHEN code BETWEEN 904 AND 906 THEN code + 37
      WHEN code = 908 THEN 972
      WHEN code BETWEEN 910 AND 911 THEN code + 63
      WHEN code BETWEEN 913 AND 939 THEN code + 32
      WHEN code BETWEEN 1024 AND 1039 THEN code + 80
      WHEN code BETWEEN 1040 AND 1071 THEN code + 32
      WHEN code = 1216 THEN 1231
      WHEN code BETWEEN 1329 AND 1366 THEN code + 48
      END
    FROM (SELECT DISTINCT pg_catalog.ascii(hit[1])
      FROM pg_catalog.regexp_matches(
        content, '[\u00c0-\u00de\u0100-\u0232\u0386-\u03ab\u0400-\u0556\u1e00-\u1efe]', 'g') AS match (hit)
    ) AS present (code)
  ) AS pair (capital, small)
  WHERE small IS NOT NULL;
  RETURN pg_catalog.translate(content, coalesce(capitals, ''), coalesce(smalls, ''));
END
$$
