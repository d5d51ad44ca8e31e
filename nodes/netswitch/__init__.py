"""The network-switch daemon: one process per network switch of a lab."""
