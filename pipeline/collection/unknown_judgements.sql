-- `unknown_judgements`: judgements of passages that are not in the collection, those of earlier imports and the new ones.
-- Those whose passage has been imported since become judgements.
INSERT INTO judgements
SELECT query_id, passage_id, grade FROM old_unknown_judgements JOIN known_passages USING (external_id);
CREATE TABLE unknown_judgements AS
SELECT query_id, external_id, grade FROM old_unknown_judgements ANTI JOIN known_passages USING (external_id)
UNION
SELECT query_id, external_id, grade FROM new_unknown_judgements
