-- The triples of one key range, in key order, given the view `filtered`.
SELECT query_id, positive_id, negative_id, positive_score, negative_score, margin, margin_std
FROM filtered
WHERE shuffle_key BETWEEN $first AND $last
ORDER BY shuffle_key, query_id, positive_id, negative_id
