-- One shard's pairs with all teachers' scores side by side, in file order, given the views `pairs`,
-- `scores_0`, `scores_1`, … and the table `split_queries`. `aligned` tells whether every file names the same
-- pair in this row; a file that is short leaves nulls. Sums of float32 are exact in doubles for a few teachers.
CREATE OR REPLACE TEMP TABLE scored AS
SELECT query_id, passage_id, grade, /*ranks*/ /*best_rank*/
       query_id IN (
           SELECT query_id FROM split_queries WHERE query_id BETWEEN $first_query AND $last_query
       ) AS in_split,
       grade >= $relevance_level IS TRUE AS is_positive,
       coalesce(grade, 0) <= 0 AS is_negative,
       /*text_id*/ /*scores*/,
       /*total*/ AS total,
       (/*aligned*/) AS aligned
FROM pairs
/*joins*/
