"""Pair shards and the teacher scores of each shard."""
