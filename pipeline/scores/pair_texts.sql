-- Ids and text hashes of the pairs of one shard, in row order, given the views `candidates`, `queries`, `passages` and
-- the table `mined`.
WITH pairs AS (
    SELECT DISTINCT query_id, passage_id
    FROM candidates
    WHERE query_id BETWEEN $first AND $last
      -- Bounded, too: otherwise the database would hold all mined queries for each shard.
      AND query_id IN (SELECT query_id FROM mined WHERE query_id BETWEEN $first AND $last)
)
SELECT query_id, passage_id, queries.text_hash AS query_hash, passages.text_hash AS passage_hash
FROM pairs JOIN queries USING (query_id) JOIN passages USING (passage_id)
ORDER BY query_id, passage_id
