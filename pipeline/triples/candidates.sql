-- Every positive (p) with every negative (n) of its query, and the code of the first reason to drop it, 0 for none. A
-- null bound is no bound. `margin_std` is the weighted standard deviation of the scaled margins of the teachers.
SELECT p.query_id AS query_id, p.passage_id AS positive_id, n.passage_id AS negative_id,
       p.total / $divisor - $centre AS positive_score, n.total / $divisor - $centre AS negative_score,
       (p.total - n.total) / $divisor AS margin,
       sqrt((/*squares*/) / $divisor) AS margin_std,
       /*ranks*/ /*agree*/,
       (CASE
           WHEN /*same_text*/ THEN 1
           WHEN negative_score < $min_score::DOUBLE THEN 2
           WHEN negative_score > $max_score::DOUBLE THEN 3
           WHEN /*outside_ranks*/ THEN 4
           WHEN /*too_close*/ THEN 5
           WHEN negative_score > (p.anchor_total / $divisor - $centre)
                - abs(p.anchor_total / $divisor - $centre) * $relative_margin::DOUBLE THEN 6
           WHEN margin_std > $max_margin_std::DOUBLE THEN 7
           ELSE 0
       END)::TINYINT AS reason
FROM /*matched*/
WHERE n.is_negative
