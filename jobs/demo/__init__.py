"""`prep demo`: a small distillation that runs offline."""
