"""Models that score pairs, and the encoder engine that students use too. Needs torch, transformers, NumPy."""
