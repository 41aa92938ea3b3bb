"""The allocation of a batch's tokens to its jobs by what they are believed to need."""
