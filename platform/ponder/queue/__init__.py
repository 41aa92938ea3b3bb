"""Celery on Redis: wake-ups that may be lost at any time."""
