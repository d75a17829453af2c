"""The embedded world: drawn, filmed, and with every answer known."""
