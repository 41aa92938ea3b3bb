"""The size of a model on GPUs: what of it fits, and how fast it can be."""
