"""The scripts here run in the environments of other libraries, which this one cannot import."""

collect_ignore_glob = ["with_*.py"]
