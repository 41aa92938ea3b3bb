"""Chooses the next token of each row, and finds the end of a sequence's text."""
