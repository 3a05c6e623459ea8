-- A text as a reader sees it, in small letters: what to make words of. Composed (NFKC) where the encoding is UTF8,
-- without characters that nobody sees, with a space for every sign beyond ASCII that is not part of a word. Which ones
-- those are is said here, because LC_CTYPE may know nothing of them.
CREATE OR REPLACE FUNCTION rag_folded_text(content text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
  invisible CONSTANT text :=
    '[\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f'
    '\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]';
  optional CONSTANT text := -- vowel points of Arabic and Hebrew, and tatweel: most texts go without them
    '[\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc'
    '\u06df-\u06e8\u06ea-\u06ed]';
  signs CONSTANT text :=
    '[\u0080-\u00bf\u00d7\u00f7\u02c2-\u02c5\u02d2-\u02eb\u02ed\u02ef-\u02ff\u0375\u03f6\u0482\u055a-\u055f'
    '\u0589-\u058f\u05be\u05c0\u05c3\u05c6\u05f3-\u060f\u061b-\u061f\u066a-\u066d\u06d4\u06dd-\u06de'
    '\u06e9\u06fd-\u06fe\u0700-\u070f\u07f6-\u07f9\u07fe-\u07ff\u0830-\u083e\u085e\u0888\u0890-\u0891'
    '\u08e2\u0964-\u0965\u0970\u09f2-\u09f3\u09fa-\u09fb\u09fd\u0a76\u0af0-\u0af1\u0b70\u0bf3-\u0bfa'
    '\u0c77\u0c7f\u0c84\u0d4f\u0d79\u0df4\u0e3f\u0e4f\u0e5a-\u0e5b\u0f01-\u0f17\u0f1a-\u0f1f\u0f34\u0f36'
    '\u0f38\u0f3a-\u0f3d\u0f85\u0fbe-\u0fc5\u0fc7-\u0fda\u104a-\u104f\u109e-\u109f\u10fb\u1360-\u1368'
    '\u1390-\u1399\u1400\u166d-\u166e\u1680\u169b-\u169c\u16eb-\u16ed\u1735-\u1736\u17d4-\u17d6\u17d8-\u17db'
    '\u1800-\u180a\u1940-\u1945\u19de-\u19ff\u1a1e-\u1a1f\u1aa0-\u1aa6\u1aa8-\u1aad\u1b5a-\u1b6a\u1b74-\u1b7e'
    '\u1bfc-\u1bff\u1c3b-\u1c3f\u1c7e-\u1c7f\u1cc0-\u1cc7\u1cd3\u2010-\u20c0\u2104-\u212e\u213a-\u214d'
    '\u214f\u218a-\u244a\u2500-\u2775\u2794-\u2bff\u2ce5-\u2cea\u2cf9-\u2cfc\u2cfe-\u2cff\u2d70\u2e00-\u2e2e'
    '\u2e30-\u3004\u3008-\u3020\u3030\u3037\u303d-\u303f\u30a0\u30fb\u3190-\u3191\u31c0-\u31e3\u327f'
    '\u4dc0-\u4dff\ua490-\ua4c6\ua4fe-\ua4ff\ua60d-\ua60f\ua673\ua67e\ua6f2-\ua716\ua720-\ua721\ua789-\ua78a'
    '\ua828-\ua82b\ua836-\ua839\ua874-\ua877\ua8ce-\ua8cf\ua8f8-\ua8fa\ua8fc\ua92e-\ua92f\ua95f\ua9c1-\ua9cd'
    '\ua9de-\ua9df\uaa5c-\uaa5f\uaa77-\uaa79\uaade-\uaadf\uaaf0-\uaaf1\uab5b\uab6a-\uab6b\uabeb\ue000-\uf8ff'
    '\ufbb2-\ufdff\ufe45-\ufe46\ufff9-\ufffd\U0001d000-\U0001d3ff\U0001d800-\U0001daff\U0001f000-\U0001fbef'
    '\U000e0000-\U000e01ef]';
  folded text;
BEGIN
  IF pg_catalog.getdatabaseencoding() <> 'UTF8'
    OR pg_catalog.octet_length(content) = pg_catalog.length(content)
  THEN
    folded := pg_catalog.lower(pg_catalog.lower(content COLLATE pg_catalog."C") COLLATE pg_catalog."default");
    RETURN CASE WHEN pg_catalog.getdatabaseencoding() IN ('LATIN1', 'LATIN9', 'WIN1252')
      THEN pg_catalog.regexp_replace(folded, '[\x80-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb-\xbf\xd7\xf7]', ' ', 'g')
      ELSE folded END;
  END IF;
  -- Persian writes the parts of a word beside each other with a joiner of no width, with a space, or as one word.
  folded := pg_catalog.regexp_replace(content, '([\u0620-\u06ff\u0750-\u077f])\u200c+', '\1-', 'g');
  folded := pg_catalog.normalize(pg_catalog.regexp_replace(folded, invisible, '', 'g'), 'NFKC');
  folded := pg_catalog.regexp_replace(folded, optional, '', 'g');
  -- First ASCII, whose I is i in Turkish too, then what LC_CTYPE knows, then what C does not.
  folded := pg_catalog.lower(pg_catalog.lower(folded COLLATE pg_catalog."C") COLLATE pg_catalog."default");
  folded := CASE WHEN pg_catalog.lower(pg_catalog.chr(201)) = pg_catalog.chr(201)
    THEN rag_small_letters(folded) ELSE folded END;
  -- The small letters that are written in two ways; typographic apostrophes and hyphens.
  folded := pg_catalog.replace(folded, pg_catalog.chr(223), 'ss');
  folded := pg_catalog.replace(folded, pg_catalog.concat('i', pg_catalog.chr(775)), 'i');
  folded := pg_catalog.translate(
    folded,
    pg_catalog.concat(pg_catalog.chr(962), pg_catalog.chr(8217), pg_catalog.chr(8216), pg_catalog.chr(700),
      pg_catalog.chr(8208), pg_catalog.chr(8722)),
    pg_catalog.concat(pg_catalog.chr(963), '''''''--')
  );
  RETURN pg_catalog.regexp_replace(folded, signs, ' ', 'g');
END
$$
