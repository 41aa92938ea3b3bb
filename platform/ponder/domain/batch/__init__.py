"""The submission of a batch: its body, its lines and their options."""
