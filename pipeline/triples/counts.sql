-- Candidates of one shard by reason and by step of their margin (quarters of a logit). For each group, also the number
-- of candidates by retriever, and the number that each teacher alone would keep.
SELECT reason, floor(margin * 4)::BIGINT AS step, count(*) AS candidates, /*systems*/ /*teachers*/
FROM candidates GROUP BY reason, step ORDER BY reason, step
