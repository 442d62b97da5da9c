"""The stage `train`: trains a student, or a teacher, and publishes it in the workspace."""
