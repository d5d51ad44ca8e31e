"""The SAN service provider: one instance per attached process, all sharing the host's proxy driver."""
