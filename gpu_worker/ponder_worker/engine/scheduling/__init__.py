"""Decides what the next step computes. It works on integers and queues, never on tensors."""
