"""What everything costs: an append-only ledger that adds up to every worker's bill, to the nano-dollar."""
