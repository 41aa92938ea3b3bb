"""The search tree: the result, the picture and the checkpoint of one job."""
