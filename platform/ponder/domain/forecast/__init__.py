"""Estimates the tokens, time and money of jobs that have not run, from those that have."""
