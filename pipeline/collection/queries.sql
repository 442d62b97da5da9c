-- `old_queries` with the splits that `query_lines` add, and the new queries numbered in file order.
CREATE TABLE queries AS
WITH lines AS (
    SELECT external_id, first(text ORDER BY file, line) AS text, min((file, line)) AS place, list(split) AS splits
    FROM query_lines GROUP BY external_id
)
SELECT query_id, external_id, old.text AS text, old.text_hash AS text_hash,
       list_sort(list_distinct(list_concat(old.splits, coalesce(lines.splits, [])))) AS splits
FROM old_queries AS old LEFT JOIN lines USING (external_id)
UNION ALL
SELECT ((SELECT coalesce(max(query_id) + 1, 0) FROM old_queries) + row_number() OVER (ORDER BY place) - 1)::INT,
       external_id, text, md5_number_lower(text), list_sort(list_distinct(splits))
FROM lines ANTI JOIN old_queries USING (external_id)
