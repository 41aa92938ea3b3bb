"""Triton kernels, each beside its torch reference. They need torch, Triton and numpy, and nothing of ponder."""
