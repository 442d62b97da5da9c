-- Counts of `qrels` and `new_unknown_judgements` for the report.
UPDATE added SET
    qrels = (SELECT count(*) FROM qrels) - (SELECT count(*) FROM old_qrels),
    unknown_passages = (SELECT count(*) FROM new_unknown_judgements),
    repeated_judgements = (SELECT count(*) FROM judgements)
        - (SELECT count(*) FROM qrels) + (SELECT count(*) FROM old_qrels)
