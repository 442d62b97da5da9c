-- `lines` of one qrels file that name a passage which is not in the collection.
INSERT INTO new_unknown_judgements
SELECT queries.query_id, lines.passage, lines.number
FROM lines
JOIN queries ON queries.external_id = lines.query
ANTI JOIN known_passages ON known_passages.external_id = lines.passage
