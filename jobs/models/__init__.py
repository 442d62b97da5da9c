"""Checkpoints, token stores and encoded passages of a workspace."""
