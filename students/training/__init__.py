"""Losses, batches and the training loop; runs on torch, transformers, accelerate and NumPy alone."""
