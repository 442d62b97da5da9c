"""Data sets of the Hugging Face hub, or of directories with the same layout.

files      which files a split has, and which would be left out
rows       reads files (CSV, JSON, Parquet, Arrow) as batches, with ids and texts as they are written
layouts    what a table holds, by the names of its columns
lists      reads rows that hold a query with lists of positives and negatives
data_set   a table as a collection, or as candidates
"""
