"""CURVE for channels over tcp://: a key pair per node, and the allow-list that binds public keys to node names.

Keys are Z85 texts of 40 characters. A node knows its own secret key and everybody's public key; zmq asks
``AllowList`` (by ZAP, RFC 27) about every peer that shakes hands with it, and what it answers as the peer's user id,
the node's name, comes back with every message: a node cannot speak under another one's name.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.utils.z85

from fabric.errors import UsageError

ZAP_ADDRESS = "inproc://zeromq.zap.01"
DOMAIN = "sanloom"
_KEY = re.compile(r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One node's keys; the secret one never shows in a text."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node needs to speak over tcp://: its own keys, and node name -> public key of those it may speak with."""

    keys: KeyPair
    peers: dict[str, str]

    def __post_init__(self) -> None:
        for name, key in self.peers.items():
            if not _KEY.match(key):
                raise UsageError(f"the public key of {name} is not a CURVE key (40 characters of Z85)")


def new_keys() -> KeyPair:
    """A fresh pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def write_secret(keys: KeyPair, path: Path) -> None:
    """Write the secret key into a new file that only its owner can read; FileExistsError if there is one already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(keys.secret + "\n")


def read_secret(path: Path) -> KeyPair:
    """The pair whose secret key is in the file; UsageError if others can read it or it is no key."""
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path}: others can read this secret key; chmod 600 it, or better, make a new one")
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not _KEY.match(text):
        raise UsageError(f"{path}: not a CURVE key (40 characters of Z85)")
    return KeyPair(zmq.curve_public(text.encode()).decode(), text)


class AllowList:
    """The ZAP handler of one zmq context; ``serve`` answers all that wait and never blocks."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", peers: dict[str, str]) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)
        self._names = {zmq.utils.z85.decode(key): name for name, key in peers.items()}
        self.refused = 0
        """Handshakes of unknown keys, and requests that made no sense."""

    def serve(self) -> None:
        """Answer every request that waits."""
        while True:
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._answer(request))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        version, number = [*request, b"", b""][:2]
        name = None
        if len(request) == 7 and version == b"1.0" and request[2] == DOMAIN.encode() and request[5] == b"CURVE":
            name = self._names.get(request[6])
        if name is None:
            self.refused += 1
            return [b"1.0", number, b"400", b"unknown key", b"", b""]
        return [b"1.0", number, b"200", b"OK", name.encode(), b""]

    def close(self) -> None:
        """Close the handler's socket."""
        self.socket.close(0)
