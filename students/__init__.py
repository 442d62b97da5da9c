"""Student architectures, losses, training and inference. Imports no ray, duckdb, datasets or pyarrow."""
