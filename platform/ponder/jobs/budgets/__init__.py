"""The use cases of budgets."""
