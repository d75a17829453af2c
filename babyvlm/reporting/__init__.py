"""What was published, tables of this run beside it, and which cells can be filled."""
