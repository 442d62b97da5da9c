-- The first line of `query_lines` without an id, or whose id has another text on an earlier line or in
-- `old_queries`: (what, expected, found).
WITH seen AS (
    SELECT file, line, external_id, text FROM query_lines
    UNION ALL
    SELECT -1, 0, external_id, text FROM old_queries
),
first_text AS (
    SELECT external_id, arg_min(text, (file, line)) AS text
    FROM seen GROUP BY external_id HAVING min(text) <> max(text)
)
SELECT what, expected, found FROM (
    SELECT file, line, 'line ' || line || ' has an empty id' AS what, 'an id and a text' AS expected, NULL AS found
    FROM query_lines WHERE external_id = ''
    UNION ALL
    SELECT file, line, 'line ' || line || ' has an id with white space or a control character',
           'an id that fits into a run file, whose fields are separated by white space', '"' || external_id || '"'
    FROM query_lines ANTI JOIN old_queries USING (external_id)
    WHERE regexp_matches(external_id, '[\s\p{Z}\p{Cc}\x{FEFF}]')
    UNION ALL
    SELECT file, line, 'line ' || line || ' gives query ' || external_id || ' a second text',
           first_text.text, query_lines.text
    FROM query_lines JOIN first_text USING (external_id) WHERE query_lines.text <> first_text.text
)
ORDER BY file, line LIMIT 1
