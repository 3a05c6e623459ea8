-- The words of a question, each as what rag_words makes of a chunk that has it: the twin of that function. A row is one
-- way to have a word: a chunk does that holds all of its lexemes. GPT4 may stand as gpt4 or as gpt and 4, and a stem as
-- a word of its own or behind ~. Frequencies are counted by term; a word counts once, however many terms it has.
CREATE OR REPLACE FUNCTION rag_query_words(config text, content text, most integer)
RETURNS TABLE (word text, term text, lexemes text[])
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE ROWS 16
SET search_path FROM CURRENT
AS $$
DECLARE
  unspaced CONSTANT text :=
    '[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u0e00-\u0eff'
    '\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48f'
    '\ua9e0-\ua9ff\uaa60-\uaadf]';
  particles CONSTANT text := -- of Korean, one syllable behind a noun of one
    '[\uc740\ub294\uc774\uac00\uc744\ub97c\uc5d0\uc758\ub3c4\ub85c\uc640\uacfc\ub9cc]';
  folded text := rag_folded_text(content);
  runs boolean := pg_catalog.getdatabaseencoding() = 'UTF8'
    AND pg_catalog.octet_length(folded) > pg_catalog.length(folded);
BEGIN
  IF runs THEN
    runs := folded ~ unspaced;
  END IF;
  IF runs THEN  -- a space on both sides
    folded := pg_catalog.regexp_replace(folded, pg_catalog.concat('(', unspaced, '+)'), ' \1 ', 'g');
  END IF;
  RETURN QUERY
  WITH token AS MATERIALIZED (
    SELECT hit[1] AS token, place, runs AND hit[1] ~ unspaced AS is_run
    FROM pg_catalog.regexp_matches(
      folded, '[^\x01-\x2f\x3a-\x60\x7b-\x7f]+(?:[-._''&+~]+[^\x01-\x2f\x3a-\x60\x7b-\x7f]+)*', 'g'
    ) WITH ORDINALITY AS match (hit, place)
  ), part AS (
    SELECT pg_catalog."left"(piece, 200) AS piece, place, sub
    FROM token, pg_catalog.unnest(
      pg_catalog.string_to_array(pg_catalog.regexp_replace(token, '[-._''&+~]+', ' ', 'g'), ' ')
    ) WITH ORDINALITY AS each (piece, sub)
    WHERE NOT is_run
  ), whole AS (  -- what is searched for as it stands, whatever the configuration
    SELECT pg_catalog."left"(pg_catalog.regexp_replace(
      pg_catalog.regexp_replace(token, '([^-._''&+~0-9])[-._''&+~]+(?=[^-._''&+~])', '\1', 'g'),
      '[-._''&+~]+(?=[^-._''&+~0-9])', '', 'g'
    ), 200) AS whole, place, 0::bigint AS sub
    FROM token WHERE NOT is_run AND token ~ '[-._''&+~]'
    UNION ALL
    SELECT pg_catalog."left"(hit[1], 200), 0, place
    FROM pg_catalog.regexp_matches(folded, '[a-z](?:\+\+|#)|[0-9]+(?:[-.,:/][0-9]+)+', 'g')
      WITH ORDINALITY AS match (hit, place)
    UNION ALL
    SELECT gram, place, sub
    FROM token CROSS JOIN LATERAL (
      SELECT pg_catalog.concat(letter, pg_catalog.lead(letter) OVER (ORDER BY each.sub)), each.sub
      FROM pg_catalog.unnest(pg_catalog.string_to_array(token, NULL)) WITH ORDINALITY AS each (letter, sub)
    ) AS made (gram, sub)
    WHERE is_run AND (pg_catalog.length(gram) = 2 OR pg_catalog.length(token) = 1)
    UNION ALL
    SELECT pg_catalog."left"(token, 1), place, 2
    FROM token WHERE is_run AND pg_catalog.length(token) = 2 AND pg_catalog."right"(token, 1) ~ particles
  ), chosen AS (
    SELECT each.word, pg_catalog.min(each.place) AS place, pg_catalog.min(each.sub) AS sub,
      pg_catalog.bool_or(each.is_whole) AS is_whole
    FROM (
      SELECT whole, place, sub, true FROM whole
      UNION ALL
      SELECT piece, place, sub, false FROM part
    ) AS each (word, place, sub, is_whole)
    GROUP BY each.word
    ORDER BY 2, 3, 1
    LIMIT most
  )
  SELECT chosen.word, chosen.word, ARRAY[chosen.word] FROM chosen WHERE is_whole OR config = 'simple'
  UNION ALL
  SELECT chosen.word, stem, ARRAY[marked]
  FROM chosen, pg_catalog.unnest(
    pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config::regconfig, chosen.word))
  ) AS stem, pg_catalog.unnest(ARRAY[stem, pg_catalog.concat('~', stem)]) AS marked
  WHERE config <> 'simple' AND NOT is_whole
  UNION ALL
  SELECT chosen.word, pg_catalog.concat(chosen.word, ' '), pg_catalog.string_to_array(pg_catalog.btrim(
    pg_catalog.regexp_replace(chosen.word, '([0-9]+)', ' \1 ', 'g')
  ), ' ')
  FROM chosen
  WHERE NOT is_whole AND chosen.word ~ '[0-9]' AND chosen.word ~ '[^0-9]'
  UNION ALL
  SELECT token, stem, ARRAY[marked]
  FROM token, pg_catalog.unnest(
    pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config::regconfig, token))
  ) AS stem, pg_catalog.unnest(ARRAY[stem, pg_catalog.concat('~', stem)]) AS marked
  WHERE config <> 'simple' AND is_run;
END
$$
