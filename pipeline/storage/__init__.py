"""Where files are kept: local disk or an object store, written so that a file that exists is complete."""
