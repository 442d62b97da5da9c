-- What negatives are measured from, given `scored`: each positive with its own scores, or with the lowest of
-- its query's positives, as the anchor. A query without positives has none.
CREATE OR REPLACE TEMP TABLE positives AS
SELECT query_id, passage_id, /*text_id*/ total, /*anchor_total*/ AS anchor_total, /*scores*/, /*anchors*/
FROM scored WHERE in_split AND is_positive
