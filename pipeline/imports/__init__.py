"""Readers of published collections, candidate lists and scores.

To add a format of a *collection* (passages, queries, qrels), write a module with a function that returns a
`collection_source.CollectionSource`. To add a format of *candidates*, write a function that yields
`intake.CandidateBatch`, to be wrapped in a `lists.CandidateSource`. Both get a command in `jobs/commands/imports.py`
and a line in `jobs/cli.py`. A format of *scores* is read by a function that yields `CandidateBatch`, too; all it needs
is a line in `score_files.FORMS`.
"""
