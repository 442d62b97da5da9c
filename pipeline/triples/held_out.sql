-- Margins of each positive over every other relevant passage of its query, given the tables `scored` and `positives`.
-- If the other passage were unjudged, a threshold up to this margin would take it as a negative.
SELECT (p.total - o.total) / $divisor AS margin
FROM positives AS p JOIN scored AS o ON p.query_id = o.query_id
WHERE o.in_split AND o.grade >= 1 AND o.passage_id <> p.passage_id /*other_text*/
