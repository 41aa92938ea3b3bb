"""Readers of rows, one module per kind of file."""
