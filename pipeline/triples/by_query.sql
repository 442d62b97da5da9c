-- The view `triples` by query: positives by id, and the negatives of each positive in an order drawn for the query.
SELECT query_id, positive_id, negative_id, positive_score, negative_score, margin_std
FROM triples
ORDER BY query_id, positive_id, md5_number_lower(concat_ws(' ', $seed, 'turns', query_id, negative_id)), negative_id
