"""Reads and checks what tenants submit, in processes that can be stopped."""
