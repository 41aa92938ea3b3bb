"""The demo: small models that ship with ponder, the problems they solve, and how they were trained."""
