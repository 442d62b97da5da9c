-- Ids and text hashes of one shard's pairs, in row order, given the views `candidates`, `queries`, `passages`.
WITH pairs AS (
    SELECT DISTINCT query_id, passage_id
    FROM candidates
    WHERE query_id BETWEEN $first AND $last
      -- With bounds of its own, or every shard would hold all mined queries.
      AND query_id IN (SELECT query_id FROM mined WHERE query_id BETWEEN $first AND $last)
)
SELECT query_id, passage_id, queries.text_hash AS query_hash, passages.text_hash AS passage_hash
FROM pairs JOIN queries USING (query_id) JOIN passages USING (passage_id)
ORDER BY query_id, passage_id
