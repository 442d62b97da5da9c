-- Adds to `taken` the first $limit negatives of each query in the ranking of one retriever, among the `candidates`
-- without a reason to drop them. Negatives that an earlier retriever added are skipped.
INSERT INTO taken
SELECT query_id, negative_id
FROM (
    SELECT DISTINCT query_id, negative_id, /*rank*/ AS place FROM candidates
    WHERE reason = 0 AND place IS NOT NULL
) AS open
WHERE NOT EXISTS (FROM taken AS t WHERE t.query_id = open.query_id AND t.negative_id = open.negative_id)
QUALIFY row_number() OVER (PARTITION BY query_id ORDER BY place, negative_id) <= $limit
