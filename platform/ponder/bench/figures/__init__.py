"""The figures of a cell: what it got right, what the service did, what users felt, and what it cost."""
