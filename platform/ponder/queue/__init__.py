"""Celery on Redis, for wake-ups that may be lost at any time."""
