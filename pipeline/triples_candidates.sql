-- Every positive (p) with every negative (n) of its query, and the first reason against it, 0 for none. A null
-- bound is no bound. The spread is the standard deviation of the teachers' scaled margins, weighted as they are.
SELECT p.query_id AS query_id, p.passage_id AS positive_id, n.passage_id AS negative_id,
       p.total / $divisor - $centre AS positive_score, n.total / $divisor - $centre AS negative_score,
       (p.total - n.total) / $divisor AS margin,
       sqrt((/*squares*/) / $divisor) AS margin_std,
       /*ranks*/ /*agree*/,
       (CASE
           WHEN /*same_text*/ THEN 1
           WHEN negative_score < $min_score::DOUBLE THEN 2
           WHEN negative_score > $max_score::DOUBLE THEN 3
           WHEN n.best_rank IS NULL AND coalesce($rank_from, $rank_to)::INTEGER IS NOT NULL THEN 4
           WHEN n.best_rank < $rank_from::INTEGER OR n.best_rank > $rank_to::INTEGER THEN 4
           WHEN /*too_close*/ THEN 5
           WHEN negative_score > (p.anchor_total / $divisor - $centre)
                - abs(p.anchor_total / $divisor - $centre) * $relative_margin::DOUBLE THEN 6
           WHEN margin_std > $max_margin_std::DOUBLE THEN 7
           ELSE 0
       END)::TINYINT AS reason
FROM /*matched*/
WHERE n.in_split AND n.is_negative
