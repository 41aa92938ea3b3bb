"""A real Postgres and a real Redis from wheels, for one machine with nothing installed."""
