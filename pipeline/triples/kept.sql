-- The triples of a shard, in any order.
SELECT query_id, positive_id, negative_id, positive_score::FLOAT AS positive_score,
       negative_score::FLOAT AS negative_score, margin::FLOAT AS margin, margin_std::FLOAT AS margin_std
FROM candidates WHERE reason = 0
