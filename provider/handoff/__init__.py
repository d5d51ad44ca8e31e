"""Who controls a shared socket: the registry, the table of a transfer, and the tickets that name one."""
