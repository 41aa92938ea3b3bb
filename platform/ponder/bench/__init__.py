"""`ponder bench`: measures models, strategies and serving settings together, through the HTTP API."""
