"""The verifiers, one file each. `examine.py` lists them."""
