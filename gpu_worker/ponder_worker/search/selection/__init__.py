"""Ranks candidates, and decides when more of them would not change the answer and what more is worth its tokens."""
