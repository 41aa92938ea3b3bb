"""Loads the models, and sizes the memory that their keys and values get."""
