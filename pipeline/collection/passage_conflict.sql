-- The first line of `keys` (line, external_id, text_hash) without an id, or whose id has another text on
-- an earlier line or in `old_passages`: (what, expected, found).
WITH seen AS (
    SELECT line, external_id, text_hash FROM keys
    UNION ALL
    SELECT 0, external_id, text_hash FROM old_passages WHERE external_id IN (SELECT external_id FROM keys)
),
first_text AS (
    SELECT external_id, arg_min(text_hash, line) AS text_hash, min(line) AS line
    FROM seen GROUP BY external_id HAVING min(text_hash) <> max(text_hash)
)
SELECT what, expected, found FROM (
    SELECT line, 'line ' || line || ' has an empty id' AS what, 'an id and a text' AS expected, NULL AS found
    FROM keys WHERE external_id = ''
    UNION ALL
    SELECT line, 'line ' || line || ' has an id with white space or a control character',
           'an id that fits into a run file, whose fields are separated by white space', '"' || external_id || '"'
    FROM keys ANTI JOIN old_passages USING (external_id)
    WHERE regexp_matches(external_id, '[\s\p{Z}\p{Cc}\x{FEFF}]')
    UNION ALL
    SELECT keys.line, 'line ' || keys.line || ' gives passage ' || external_id || ' a second text',
           'one text for an id',
           CASE first_text.line WHEN 0 THEN 'another one in the workspace' ELSE 'another one on line ' || first_text.line END
    FROM keys JOIN first_text USING (external_id) WHERE keys.text_hash <> first_text.text_hash
)
ORDER BY line LIMIT 1
