-- One shard's pairs with every teacher's score and their weighted sum, given the view `zipped`, whose rows were
-- checked. Sums of float32 are exact in doubles for a few teachers.
CREATE OR REPLACE TEMP VIEW scored AS
SELECT query_id, passage_id, grade, /*ranks*/ /*best_rank*/ in_split,
       grade >= /*relevance_level*/ IS TRUE AS is_positive,
       coalesce(grade, 0) <= 0 AS is_negative,
       /*text_id*/ /*scores*/,
       /*total*/ AS total
FROM zipped
