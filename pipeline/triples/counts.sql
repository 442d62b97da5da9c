-- Candidates of one shard by reason and by step of their margin (quarters of a logit); of each group, how many
-- each retriever brought and how many each teacher alone would have kept.
SELECT reason, floor(margin * 4)::BIGINT AS step, count(*) AS candidates, /*systems*/ /*teachers*/
FROM candidates GROUP BY reason, step ORDER BY reason, step
