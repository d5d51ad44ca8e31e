"""Tickets: what a special WSAPROTOCOL_INFOW carries.

``dwProviderReserved`` is the ticket's number, never zero. ``szProtocol`` is the provider's name, its terminating NUL,
zeros, and in the last 48 bytes (raw bytes, not text) 16 random bytes and a digest of 32: BLAKE2b, keyed with the node's
secret, over every other byte of the structure, the target's pid and its start time. So not a single bit of the 628
bytes can change, and no other process or node can use it.
"""

import hashlib
import hmac
from dataclasses import replace

from fabric.ids import ProcessInstance
from provider.protocol_info import SIZE, WSAPROTOCOL_INFOW

NONCE_SIZE = 16
DIGEST_SIZE = 32


def _digest(key: bytes, body: bytes, target: ProcessInstance) -> bytes:
    person = f"{target.pid}/{target.start_time}".encode()
    return hashlib.blake2b(body + person, key=key[:64], digest_size=DIGEST_SIZE).digest()


def seal(template: WSAPROTOCOL_INFOW, key: bytes, nonce: bytes, target: ProcessInstance) -> WSAPROTOCOL_INFOW:
    """The template with the ticket's random bytes and digest; its ``dwProviderReserved`` must not be zero."""
    assert template.dwProviderReserved, "zero is no ticket number"
    name = template.name_bytes[: -NONCE_SIZE - DIGEST_SIZE]
    assert name.endswith(b"\0\0"), "the protocol's name leaves no room for a ticket"
    bare = replace(template, szProtocol=name + nonce[:NONCE_SIZE] + bytes(DIGEST_SIZE))
    digest = _digest(key, bare.pack()[:-DIGEST_SIZE], target)
    return replace(bare, szProtocol=name + nonce[:NONCE_SIZE] + digest)


def is_genuine(info: bytes, key: bytes, target: ProcessInstance) -> bool:
    """Whether ``info`` is exactly what ``seal`` made on this node for ``target``."""
    if len(info) != SIZE:
        return False
    return hmac.compare_digest(info[-DIGEST_SIZE:], _digest(key, info[:-DIGEST_SIZE], target))


def ticket_number(info: bytes) -> int:
    """``dwProviderReserved`` of 628 bytes."""
    return int.from_bytes(info[112:116], "little")
