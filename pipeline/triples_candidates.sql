-- Every positive with every negative of its query, given the table `scored`. The spread is the population
-- standard deviation of the teachers' margins. Sums of float32 are exact in doubles for a few teachers, so a
-- margin is rounded once and one that equals the threshold is kept.
CREATE OR REPLACE VIEW candidates AS
SELECT p.query_id AS query_id, p.passage_id AS positive_id, n.passage_id AS negative_id,
       p.score AS positive_score, n.score AS negative_score,
       (p.total - n.total) / len(p.scores) AS margin,
       list_stddev_pop([a[1] - a[2] FOR a IN list_zip(p.scores, n.scores)]) AS margin_std
FROM scored AS p JOIN scored AS n USING (query_id)
WHERE p.in_split AND p.is_positive AND n.is_negative
