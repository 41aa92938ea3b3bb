"""Runs a sample of a batch first, and decides by what it took whether the rest may run."""
