"""Decides what the next step computes. It works with integers and queues, never with tensors."""
