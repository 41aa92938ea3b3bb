"""Webhooks: what is said to whom, how it is signed, and its delivery from an outbox in Postgres."""
