"""Files on local disk or in an object store, written so that a file that exists is complete."""
