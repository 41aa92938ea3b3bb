"""Pages of keys and values: who holds which, where they lie, and which prefixes they already contain."""
