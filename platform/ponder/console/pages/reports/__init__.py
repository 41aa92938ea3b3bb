"""The pages of what things cost, how long they took and what came of them."""
