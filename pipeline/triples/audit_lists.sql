-- The lists of one part as triples, given the view `part`: the first passage, the positive, with each of the others.
SELECT *, positive_score - negative_score AS margin, 0 AS margin_std
FROM (
    SELECT query_id, passage_ids[1] AS positive_id, scores[1] AS positive_score,
           unnest(passage_ids[2:]) AS negative_id, unnest(scores[2:]) AS negative_score
    FROM part
)
