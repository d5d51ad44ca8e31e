"""Addresses as people write them."""


def ip_text(ip: bytes) -> str:
    """4 bytes dotted, 16 as eight groups of hexadecimal digits."""
    return ".".join(map(str, ip)) if len(ip) == 4 else ip.hex(":", 2)
