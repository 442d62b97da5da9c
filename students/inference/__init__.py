"""Scoring, encoding and search with trained students."""
