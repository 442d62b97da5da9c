-- One shard's pairs with all teachers' scores side by side, in file order, given the views `pairs`,
-- `scores_0`, `scores_1`, … and `queries`. `aligned` tells whether every file names the same pair in
-- this row; a file that is short leaves nulls.
CREATE OR REPLACE TABLE scored AS
SELECT query_id, passage_id, grade,
       query_id IN (SELECT query_id FROM queries WHERE list_contains(splits, $split)) AS in_split,
       grade >= $relevance_level IS TRUE AS is_positive,
       coalesce(grade, 0) <= 0 AS is_negative,
       [/*scores*/] AS scores,
       list_sum(scores) AS total,
       total / len(scores) AS score,
       (/*aligned*/) AS aligned
FROM pairs
/*joins*/
