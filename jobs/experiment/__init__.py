"""Grids of trainings and evaluations, and their tables."""
