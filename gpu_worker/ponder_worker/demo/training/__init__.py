"""Training and measurement of the demo models."""
