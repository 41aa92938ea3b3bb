"""A real Postgres and a real Redis from wheels, for a machine with nothing installed."""
