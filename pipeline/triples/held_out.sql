-- Margins of each positive over every other relevant passage of its query, given `scored` and `positives`: at a
-- threshold that such a margin reaches, the other one would have been taken as a negative, had nobody judged it.
SELECT (p.total - o.total) / $divisor AS margin
FROM positives AS p JOIN scored AS o ON p.query_id = o.query_id
WHERE o.in_split AND o.grade >= 1 AND o.passage_id <> p.passage_id /*other_text*/
