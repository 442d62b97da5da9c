"""Encoding, searching and evaluating with teachers, students and retrievers."""
