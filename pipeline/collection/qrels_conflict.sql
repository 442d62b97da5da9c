-- The first line of `lines` with an unknown query, an unknown passage (unless $keep_unknown), a query outside $split and
-- $held_out, or a grade that is no small integer: (what, expected, found).
SELECT what, expected, found FROM (
    SELECT line,
        CASE
            WHEN number IS NULL THEN 'line ' || line || ' has a bad grade'
            WHEN queries.query_id IS NULL THEN 'line ' || line || ' names an unknown query'
            WHEN known_passages.passage_id IS NULL AND NOT $keep_unknown THEN 'line ' || line || ' names an unknown passage'
            ELSE 'line ' || line || ' judges a query that is not in the split'
        END AS what,
        CASE
            WHEN number IS NULL THEN 'an integer from -128 to 127'
            WHEN queries.query_id IS NULL THEN 'a query id of the workspace'
            WHEN known_passages.passage_id IS NULL AND NOT $keep_unknown THEN 'a passage id of the workspace (--keep-unknown-passages keeps the judgement)'
            ELSE 'a query of split ' || $split
        END AS expected,
        CASE
            WHEN number IS NULL THEN lines.grade
            WHEN queries.query_id IS NULL THEN lines.query
            WHEN known_passages.passage_id IS NULL AND NOT $keep_unknown THEN lines.passage
            ELSE lines.query
        END AS found
    FROM lines
    LEFT JOIN queries ON queries.external_id = lines.query
    LEFT JOIN known_passages ON known_passages.external_id = lines.passage
    WHERE number IS NULL OR queries.query_id IS NULL OR (known_passages.passage_id IS NULL AND NOT $keep_unknown)
       OR NOT list_has_any(queries.splits, list_append($held_out::VARCHAR[], $split))
)
ORDER BY line LIMIT 1
