-- The words of a chunk, for the text index: those that stand in it, in small letters; the parts of v1, GPT-4 and 1.2.3,
-- and each of them whole, as gpt4; pairs of neighbouring letters where a script has no spaces, and in Korean, where
-- particles stand at the end of a word; behind ~ the stems that the configuration makes, if they are no words themselves.
-- The configuration is named in text, since pg_upgrade refuses columns of type regconfig. It is an array, because a
-- tsvector holds 1 MB; the index makes one of equal words.
CREATE OR REPLACE FUNCTION rag_words(config text, content text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
  unspaced CONSTANT text :=
    '[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u0e00-\u0eff'
    '\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48f'
    '\ua9e0-\ua9ff\uaa60-\uaadf]';
  spaced CONSTANT text :=
    '[^\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u0e00-\u0eff'
    '\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48f'
    '\ua9e0-\ua9ff\uaa60-\uaadf]';
  alone CONSTANT text := -- letters of Chinese that are words of their own
    '[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]';
  syllable CONSTANT text := '[\uac00-\ud7a3]';
  folded text := rag_folded_text(content);
  runs text := '';
  grams text[] := '{}';
  words text[];
  stems text[];
  vector tsvector;
  plain text;
  wholes text;
BEGIN
  IF pg_catalog.getdatabaseencoding() = 'UTF8' AND pg_catalog.octet_length(folded) > pg_catalog.length(folded)
    AND folded ~ unspaced
  THEN
    runs := pg_catalog.concat(' ', pg_catalog.regexp_replace(folded, spaced, ' ', 'g'), ' ');
    folded := pg_catalog.regexp_replace(folded, unspaced, ' ', 'g');
    grams := ARRAY(
      SELECT gram
      FROM (
        SELECT letter, pg_catalog.lag(letter) OVER places AS before, pg_catalog.lead(letter) OVER places AS after
        FROM pg_catalog.unnest(pg_catalog.string_to_array(runs, NULL)) WITH ORDINALITY AS each (letter, place)
        WINDOW places AS (ORDER BY place)
      ) AS each
      CROSS JOIN LATERAL (
        SELECT pg_catalog.concat(letter, after) WHERE after <> ' '
        UNION ALL
        SELECT letter
        WHERE before = ' ' AND (after = ' ' OR letter ~ syllable) OR letter ~ alone
      ) AS made (gram)
      WHERE letter <> ' '
    );
  END IF;
  plain := pg_catalog.btrim(pg_catalog.regexp_replace(
    folded, ' *[\x01-\x1f\x21-\x2f\x3a-\x60\x7b-\x7f][\x01-\x2f\x3a-\x60\x7b-\x7f]*|  +', ' ', 'g'
  ));
  -- Compounds whole, without what joins their parts but between digits; C++ and C#.
  wholes := pg_catalog.regexp_replace(
    pg_catalog.regexp_replace(
      pg_catalog.array_to_string(ARRAY(
        SELECT hit[1]
        FROM pg_catalog.regexp_matches(
          folded,
          '[^\x01-\x2f\x3a-\x60\x7b-\x7f]+(?:[-._''&+~]+[^\x01-\x2f\x3a-\x60\x7b-\x7f]+)+|[a-z](?:\+\+|#)', 'g'
        ) AS match (hit)
      ), ' '),
      '([^-._''&+~0-9 ])[-._''&+~]+(?=[^-._''&+~ ])', '\1', 'g'
    ),
    '[-._''&+~]+(?=[^-._''&+~0-9 ])', '', 'g'
  );
  IF plain ~ '[0-9]' THEN
    wholes := pg_catalog.concat_ws(' ', wholes, pg_catalog.array_to_string(ARRAY(
      SELECT hit[1] FROM pg_catalog.regexp_matches(folded, '[0-9]+(?:[-.,:/][0-9]+)+', 'g') AS match (hit)
    ), ' '));
    IF plain ~ '[0-9][^0-9 ]|[^0-9 ][0-9]' THEN
      wholes := pg_catalog.concat_ws(' ', wholes, pg_catalog.regexp_replace(
        pg_catalog.regexp_replace(
          pg_catalog.array_to_string(ARRAY(
            SELECT hit[1]
            FROM pg_catalog.regexp_matches(plain, '[0-9]+[^0-9 ][^ ]*|[^0-9 ]+[0-9][^ ]*', 'g') AS match (hit)
          ), ' '),
          '([0-9])(?=[^0-9 ])', '\1 ', 'g'
        ),
        '([^0-9 ])(?=[0-9])', '\1 ', 'g'
      ));
    END IF;
  END IF;
  IF plain ~ '[^ ]{200}' OR wholes ~ '[^ ]{200}' THEN
    plain := pg_catalog.regexp_replace(plain, '([^ ]{200})[^ ]+', '\1', 'g');
    wholes := pg_catalog.regexp_replace(wholes, '([^ ]{200})[^ ]+', '\1', 'g');
  END IF;
  IF wholes <> '' THEN
    grams := pg_catalog.array_cat(
      grams, pg_catalog.array_remove(pg_catalog.string_to_array(wholes, ' '), '')
    );
  END IF;
  IF pg_catalog.octet_length(folded) + pg_catalog.octet_length(runs) < 100000 THEN
    -- Each word once and sorted: cheaper here than in the index.
    vector := pg_catalog.array_to_tsvector(pg_catalog.string_to_array(plain, ' '));
    IF config <> 'simple' THEN
      words := pg_catalog.tsvector_to_array(vector);
      stems := pg_catalog.tsvector_to_array(pg_catalog.ts_delete(
        pg_catalog.to_tsvector(
          config::regconfig, pg_catalog.concat(pg_catalog.array_to_string(words, ' '), runs)
        ), words
      ));
      IF pg_catalog.cardinality(stems) > 0 THEN
        vector := vector || pg_catalog.array_to_tsvector(pg_catalog.string_to_array(
          pg_catalog.concat('~', pg_catalog.array_to_string(stems, E'\x01~')), E'\x01'
        ));
      END IF;
    END IF;
    IF pg_catalog.cardinality(grams) > 0 THEN
      vector := vector || pg_catalog.array_to_tsvector(grams);
    END IF;
    RETURN pg_catalog.tsvector_to_array(vector);
  END IF;
  words := pg_catalog.string_to_array(plain, ' ');
  IF config <> 'simple' THEN  -- piece by piece, because a tsvector holds 1 MB
    stems := ARRAY(
      SELECT pg_catalog.concat('~', stem)
      FROM (
        SELECT pg_catalog.unnest(pg_catalog.tsvector_to_array(
          pg_catalog.to_tsvector(config::regconfig, pg_catalog.string_agg(word, ' '))
        ))
        FROM pg_catalog.unnest(pg_catalog.array_cat(words, pg_catalog.string_to_array(runs, ' ')))
          WITH ORDINALITY AS each (word, place)
        GROUP BY place / 1000
        EXCEPT
        SELECT pg_catalog.unnest(words)
      ) AS lexeme (stem)
    );
  END IF;
  RETURN pg_catalog.array_cat(words, pg_catalog.array_cat(grams, stems));
END
$$
