"""Programs: evaluate, compare, the batch and the command line."""
