"""Reading an answer out of a text, and when two answers are equal.

Every function here takes time in proportion to its text: it makes one pass, or applies a pattern whose runs cannot
overlap, or a pattern to a piece of bounded length. The text is whatever a model wrote.
"""
