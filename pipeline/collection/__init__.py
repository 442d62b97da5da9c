"""Passages, queries, qrels and their ids."""
