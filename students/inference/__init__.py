"""Scoring, encoding and searching with trained students."""
