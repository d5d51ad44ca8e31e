"""The session protocol of the sockets switch: SDP with credits, half close, abort, suspension and resumption."""
