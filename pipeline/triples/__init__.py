"""Margin triples and n-way lists from the scores of an ensemble."""
