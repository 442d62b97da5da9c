-- The positives, given the table `scored`. The threshold is measured from the anchor: the scores of the positive, or
-- the lowest scores among the positives of its query.
CREATE OR REPLACE TEMP TABLE positives AS
SELECT query_id, passage_id, /*text_id*/ total, /*anchor_total*/ AS anchor_total, /*scores*/, /*anchors*/
FROM scored WHERE in_split AND is_positive
