"""Ray: actors that work off shards, and distributed training."""
