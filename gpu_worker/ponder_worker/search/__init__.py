"""Growing a tree of thoughts: strategies, the tree, the budget's wall, selection. Ids and scores, never tensors."""
