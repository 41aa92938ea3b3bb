"""Search trees as documents: what a worker stored of them, or has saved so far."""
