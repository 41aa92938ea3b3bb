"""Reading and checking what tenants submit, in processes that can be stopped."""
