-- The view `triples` grouped by query and positive; $seed decides the order of queries and of negatives.
SELECT query_id, positive_id, negative_id, positive_score, negative_score
FROM triples
ORDER BY md5_number_lower(concat_ws(' ', $seed, 'order', query_id)), query_id, positive_id,
         md5_number_lower(concat_ws(' ', $seed, 'draw', query_id, negative_id)), negative_id
