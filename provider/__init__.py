"""Sanloom's Winsock-SPI-style provider stack: the Winsock vocabulary, session protocol, handoff, and the process
half.
"""
