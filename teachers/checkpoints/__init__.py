"""What a checkpoint is, and how its model is loaded."""
