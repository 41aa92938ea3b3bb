"""The dispatcher and its steps, which move batches along."""
