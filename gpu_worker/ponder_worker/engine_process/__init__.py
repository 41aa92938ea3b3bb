"""The engine process: engine steps and search coroutines alternate, and once a tick the parent gets a report.

The parent imports `child` and `loading.engine_options` from here, and neither of them imports torch.
"""
