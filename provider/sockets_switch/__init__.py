"""The agent half of the sockets switch: it owns the shared sockets, speaks the session protocol through the provider's
ProcTable, and lets exactly one process at a time use a socket."""
