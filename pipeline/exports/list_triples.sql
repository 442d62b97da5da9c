-- The view `lists` as triples, list by list; the first passage of a list is its positive.
SELECT *, positive_score - negative_score AS margin
FROM (
    SELECT query_id, passage_ids[1] AS positive_id, unnest(passage_ids[2:]) AS negative_id,
           scores[1] AS positive_score, unnest(scores[2:]) AS negative_score
    FROM lists
)
