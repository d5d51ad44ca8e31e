"""Sanloom's virtual SAN fabric: wire format, engines, topology, simulator and live drivers."""
