-- `chosen`: the queries of $split whose external ids are $ids.
CREATE TEMP TABLE chosen AS
SELECT query_id FROM queries WHERE list_contains(splits, $split) AND external_id IN (SELECT unnest($ids))
