"""The ledger: append-only entries that add up to every worker's bill, to the nano-dollar."""
