-- Adds to `taken`, for each positive, its first $limit negatives in the ranking of one retriever, among the `candidates`
-- without a reason to drop them. Negatives that an earlier retriever added for the positive are skipped.
INSERT INTO taken
SELECT query_id, positive_id, negative_id
FROM (
    SELECT query_id, positive_id, negative_id, /*drawn_for*/ AS drawn_for, /*rank*/ AS place FROM candidates
    WHERE reason = 0 AND place IS NOT NULL
) AS open
WHERE NOT EXISTS (
    FROM taken AS t
    WHERE t.query_id = open.query_id AND t.positive_id = open.positive_id AND t.negative_id = open.negative_id
)
QUALIFY row_number() OVER (PARTITION BY query_id, drawn_for ORDER BY place, negative_id) <= $limit
