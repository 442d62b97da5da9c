-- The pairs of one shard with the score of every teacher and their weighted sum, given the table `zipped`, whose ids
-- were checked. In doubles, the sum of a few float32 scores is exact.
CREATE OR REPLACE TEMP VIEW scored AS
SELECT query_id, passage_id, grade, /*ranks*/ /*best_rank*/ in_split,
       grade >= /*relevance_level*/ IS TRUE AS is_positive,
       coalesce(grade, 0) <= 0 AS is_negative,
       /*text_id*/ /*scores*/,
       /*total*/ AS total
FROM zipped
