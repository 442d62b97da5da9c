"""The composition root: the `prep` command line, and Ray."""
