-- One shard's pairs with every teacher's score and their weighted sum, given the view `zipped`, whose rows were
-- checked. Sums of float32 are exact in doubles for a few teachers.
CREATE OR REPLACE TEMP VIEW scored AS
SELECT query_id, passage_id, grade, /*ranks*/ /*best_rank*/ in_split,
       grade >= /*relevance_level*/ IS TRUE AS is_positive,
       coalesce(grade, 0) <= 0 AS is_negative,
       /*text_id*/ /*scores*/,
       /*total*/ AS total
FROM zipped

-- Of passages with one normalised text on the same side of a query, the one of the lowest id stays; the others are
-- neither positive nor negative, which a null marks.
CREATE OR REPLACE TEMP TABLE collapsed AS
SELECT * EXCLUDE (place) REPLACE (
    is_positive AND place = 1 AS is_positive,
    CASE WHEN place = 1 OR NOT in_split OR NOT (is_positive OR is_negative) THEN is_negative END AS is_negative
)
FROM (
    SELECT *, row_number() OVER (PARTITION BY query_id, is_positive, is_negative, text_id ORDER BY passage_id) AS place
    FROM scored
);
CREATE OR REPLACE TEMP VIEW scored AS FROM collapsed

-- What negatives are measured from, given `scored`: each positive with its own scores, or with the lowest of
-- its query's positives, as the anchor. A query without positives has none.
CREATE OR REPLACE TEMP TABLE positives AS
SELECT query_id, passage_id, /*text_id*/ total, /*anchor_total*/ AS anchor_total, /*scores*/, /*anchors*/
FROM scored WHERE in_split AND is_positive

-- The passages of each query without a positive in a drawn circle, each followed by its `partner_id`.
CREATE OR REPLACE TEMP TABLE ring AS
WITH placed AS (
    SELECT *, total AS anchor_total,
           row_number() OVER (
               PARTITION BY query_id
               ORDER BY md5_number_lower(concat_ws(' ', $seed, 'ring', query_id, passage_id)), passage_id
           ) AS place,
           count(*) OVER (PARTITION BY query_id) AS places
    FROM scored WHERE in_split AND is_negative AND query_id NOT IN (SELECT query_id FROM positives)
)
SELECT p.query_id, p.passage_id, /*text_id*/ p.total, p.anchor_total, /*scores*/, /*anchors*/,
       n.passage_id AS partner_id
FROM placed AS p JOIN placed AS n ON p.query_id = n.query_id AND n.place = p.place % p.places + 1
WHERE p.places > 1

-- Every positive (p) with every negative (n) of its query, and the first reason against it, 0 for none. A null
-- bound is no bound. The spread is the standard deviation of the teachers' scaled margins, weighted as they are.
SELECT p.query_id AS query_id, p.passage_id AS positive_id, n.passage_id AS negative_id,
       p.total / $divisor - $centre AS positive_score, n.total / $divisor - $centre AS negative_score,
       (p.total - n.total) / $divisor AS margin,
       sqrt((/*squares*/) / $divisor) AS margin_std,
       /*ranks*/ /*agree*/,
       (CASE
           WHEN /*same_text*/ THEN 1
           WHEN negative_score < $min_score::DOUBLE THEN 2
           WHEN negative_score > $max_score::DOUBLE THEN 3
           WHEN /*outside_ranks*/ THEN 4
           WHEN /*too_close*/ THEN 5
           WHEN negative_score > (p.anchor_total / $divisor - $centre)
                - abs(p.anchor_total / $divisor - $centre) * $relative_margin::DOUBLE THEN 6
           WHEN margin_std > $max_margin_std::DOUBLE THEN 7
           ELSE 0
       END)::TINYINT AS reason
FROM /*matched*/
WHERE n.is_negative

-- Of one retriever, in the order of its ranks, the first $limit negatives of each query that stand in
-- `candidates` without a reason against them and that no earlier retriever has put in `taken`.
INSERT INTO taken
SELECT query_id, negative_id
FROM (
    SELECT DISTINCT query_id, negative_id, /*rank*/ AS place FROM candidates
    WHERE reason = 0 AND place IS NOT NULL
) AS open
WHERE NOT EXISTS (FROM taken AS t WHERE t.query_id = open.query_id AND t.negative_id = open.negative_id)
QUALIFY row_number() OVER (PARTITION BY query_id ORDER BY place, negative_id) <= $limit

-- At most $limit negatives of each query among the `candidates` without a reason against them: the highest
-- scored, any, or any with weight 1 / log2(1 + place by score) (Efraimidis and Spirakis 2006).
CREATE OR REPLACE TEMP TABLE taken AS
WITH passed AS (
    SELECT DISTINCT query_id, negative_id, negative_score FROM candidates WHERE reason = 0
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY query_id ORDER BY negative_score DESC, negative_id) AS place,
           (md5_number_lower(concat_ws(' ', $seed, 'draw', query_id, negative_id))::DOUBLE + 0.5) / 18446744073709551616
           AS draw
    FROM passed
),
turned AS (
    SELECT *, CASE $strategy WHEN 'top' THEN place WHEN 'random' THEN draw ELSE -ln(draw) * log2(1 + place) END AS turn
    FROM placed
)
SELECT query_id, negative_id FROM turned
QUALIFY row_number() OVER (PARTITION BY query_id ORDER BY turn, negative_id) <= $limit

-- Candidates whose negative was not `taken` are over the limit.
UPDATE candidates SET reason = $reason
WHERE reason = 0 AND NOT EXISTS (
    FROM taken AS t WHERE t.query_id = candidates.query_id AND t.negative_id = candidates.negative_id
)

-- Candidates of one shard by reason and by step of their margin (quarters of a logit); of each group, how many
-- each retriever brought and how many each teacher alone would have kept.
SELECT reason, floor(margin * 4)::BIGINT AS step, count(*) AS candidates, /*systems*/ /*teachers*/
FROM candidates GROUP BY reason, step ORDER BY reason, step

-- What became of one shard's pairs and queries, given `scored` and `candidates`.
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
met AS (SELECT query_id, min(reason) = 0 AS has_triples FROM candidates GROUP BY query_id)
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
(SELECT count(*) AS queries_with_candidates, count(*) FILTER (has_triples) AS queries_with_triples FROM met)

-- The rows of a shard's triples, in any order.
SELECT query_id, positive_id, negative_id, positive_score::FLOAT AS positive_score,
       negative_score::FLOAT AS negative_score, margin::FLOAT AS margin, margin_std::FLOAT AS margin_std
FROM candidates WHERE reason = 0
-- Passages that share their text with another one but for case and white space, with the lowest id of each
-- group, given the view `passages`.
WITH texts AS (
    SELECT passage_id, md5_number_lower(lower(trim(regexp_replace(text, '\s+', ' ', 'g')))) AS text_hash FROM passages
),
groups AS (
    SELECT text_hash, min(passage_id) AS text_id FROM texts GROUP BY text_hash HAVING count(*) > 1
)
SELECT passage_id, text_id FROM texts JOIN groups USING (text_hash) ORDER BY passage_id
