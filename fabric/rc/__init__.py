"""Reliable connection: queue pairs and the channel adapter that owns them."""
