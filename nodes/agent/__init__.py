"""The agent: the daemon of one host, its "kernel half". It drives the host stack and serves the host's processes."""
