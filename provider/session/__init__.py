"""The session protocol of a socket: SDP messages, credits, graceful close and suspension (sans-IO)."""
