"""Reads an answer out of a text, and tells when two answers are the same by their writing.

The text is whatever a model wrote, so every function here takes time in proportion to its length. It makes one pass,
applies a pattern whose runs cannot overlap, or applies a pattern to a piece of bounded length.
"""
