"""Traces of jobs, as far as Postgres knows what they tell."""
