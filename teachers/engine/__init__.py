"""Batching and running encoders."""
