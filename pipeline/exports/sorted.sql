-- The view `triples` query by query and positive by positive, both queries and negatives in an order drawn by $seed.
SELECT query_id, positive_id, negative_id, positive_score, negative_score
FROM triples
ORDER BY md5_number_lower(concat_ws(' ', $seed, 'order', query_id)), query_id, positive_id,
         md5_number_lower(concat_ws(' ', $seed, 'draw', query_id, negative_id)), negative_id
