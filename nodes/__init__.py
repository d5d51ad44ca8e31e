"""Sanloom's processes: the host agent, the network-switch daemon, built-in applications, labs and the command line."""
