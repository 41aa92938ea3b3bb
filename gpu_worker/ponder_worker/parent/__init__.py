"""The parent process of a worker: it talks to Celery, Postgres, verifiers and metrics, and holds no torch."""
