"""Readers of published collections, runs, scores, triples and lists."""
