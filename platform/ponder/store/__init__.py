"""The tables in Postgres and the engine that reaches them."""
