-- Counts of the pairs, queries and positives of one shard, given the tables `scored`, `positives` and `candidates`.
WITH read AS (
    SELECT query_id,
           count(*) AS pairs,
           count(*) FILTER (NOT in_split) AS of_other_splits,
           count(*) FILTER (in_split AND is_positive) AS positives,
           count(*) FILTER (in_split AND is_negative) AS negatives,
           count(*) FILTER (in_split AND is_negative IS NULL) AS collapsed,
           count(*) FILTER (in_split AND NOT is_positive AND NOT is_negative) AS below_relevance_level
    FROM scored GROUP BY query_id
),
paired AS (SELECT query_id, positive_id, min(reason) = 0 AS has_triples FROM candidates GROUP BY ALL),
met AS (SELECT query_id, bool_or(has_triples) AS has_triples FROM paired GROUP BY query_id),
judged AS (FROM paired AS c SEMI JOIN positives AS p ON p.query_id = c.query_id AND p.passage_id = c.positive_id)
SELECT *
FROM (
    SELECT coalesce(sum(pairs), 0)::BIGINT AS pairs,
           coalesce(sum(of_other_splits), 0)::BIGINT AS pairs_of_other_splits,
           coalesce(sum(positives), 0)::BIGINT AS positives,
           coalesce(sum(negatives), 0)::BIGINT AS negatives,
           coalesce(sum(collapsed), 0)::BIGINT AS pairs_collapsed,
           coalesce(sum(below_relevance_level), 0)::BIGINT AS pairs_below_relevance_level,
           count(*) FILTER (pairs > of_other_splits) AS queries,
           count(*) FILTER (pairs > of_other_splits AND positives = 0) AS queries_without_positive,
           count(*) FILTER (positives > 0 AND negatives = 0) AS queries_without_negative
    FROM read
),
(SELECT count(*) AS queries_with_candidates, count(*) FILTER (has_triples) AS queries_with_triples FROM met),
(SELECT count(*) AS positives_with_candidates, count(*) FILTER (has_triples) AS positives_with_triples FROM judged)
