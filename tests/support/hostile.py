"""What a hostile process does to its agent: raw packets instead of the library. Puppets import this module."""

import array
import contextlib
import json
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

from provider import ipc

__all__ = [
    *("answer", "ask", "ask_fds", "attached", "connect", "encoded", "garbage", "new_socket", "throw", "wrong_requests"),
    "wsa",
]
WRONG = (
    *(None, True, -1, 0, 1, 7, 2**31, 2**63, -(2**63), 10**4000, 1.5, float("nan"), float("inf"), 1e308),
    *("", "x", "\0", "\ud800", "é" * 30_000, "\n" * 9_000, "1.2", "a.b.c.d", "999.1.1.1", "1.2.3.4.5", "-1.0.0.1"),
    *([], {}, [1], [None, None], ["10.77.0.1", True], ["10.77.0.1", -1], ["10.77.0.1", 70_000], ["é" * 30_000, 1]),
    *(["", 0], ["a.b.c.d", 1], ["999.1.1.1", 1], ["1.2.3", 1], ["127.\ud800", 0], ["١.٢.٣.٤", 1], [[], 1], {"x": {}}),
)
"""Values for a member that expects something else."""
MEMBERS = {
    "attach": ("version", "name"),
    "WSPSocket": ("af", "type", "protocol"),
    "WSPSocket ": ("info",),
    "WSPBind": ("s", "address"),
    "WSPListen": ("s", "backlog"),
    "WSPConnect": ("s", "address"),
    "WSPAccept": ("s",),
    "WSPShutdown": ("s",),
    "WSPCloseSocket": ("s",),
    "WSPDuplicateSocket": ("s", "pid", "mode", "back"),
    "WSPGetSockOpt": ("s", "level", "name"),
    "WSPSetSockOpt": ("s", "level", "name", "value"),
    "status": ("s",),
    "reattach": ("s",),
    "detach": ("s",),
    "mark": ("scenario", "step", "moment"),
}
"""Operation -> its members; a space at the end distinguishes two forms of one operation."""
GOOD: dict[str, Any] = {
    "version": 1,
    "name": "hostile",
    "af": 2,
    "type": 1,
    "protocol": 0,
    "info": "",
    "address": ["", 0],
    "backlog": 1,
    "pid": 1,
    "mode": "local",
    "back": False,
    "level": 0xFFFF,
    "value": 1,
    "scenario": "san",
    "step": 1,
    "moment": "before",
}


def connect(path: str | None = None) -> socket.socket:
    """A raw connection to the agent of this process's host, or to another socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ipc.connect(sock, path or os.environ["SANLOOM_AGENT"], 20)
    return sock


def answer(sock: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next packet and the descriptors beside it; ``None`` when the agent hung up."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(sock, 1 << 20, 8)
    except ConnectionResetError:
        return None, []
    return (json.loads(packet) if packet else None), descriptors


def ask(sock: socket.socket, op: object, **members: Any) -> dict[str, Any] | None:
    """One request; descriptors that come along are closed."""
    reply, descriptors = ask_fds(sock, op, **members)
    for fd in descriptors:
        os.close(fd)
    return reply


def ask_fds(sock: socket.socket, op: object, **members: Any) -> tuple[dict[str, Any] | None, list[int]]:
    """One request, its answer and descriptors."""
    try:
        sock.send(json.dumps({"id": 1, "op": op, **members}, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except (BrokenPipeError, ConnectionResetError):
        return None, []
    return answer(sock)


def attached() -> socket.socket:
    """A raw connection that has said who it is."""
    sock = connect()
    reply = ask(sock, "attach", version=1)
    assert wsa(reply) == 0, reply
    return sock


def new_socket(sock: socket.socket) -> tuple[int, int]:
    """(s, descriptor) of a fresh socket."""
    reply, descriptors = ask_fds(sock, "WSPSocket", af=2, type=1)
    assert reply is not None
    assert "result" in reply, reply
    return reply["result"]["s"], descriptors[0]


def wsa(reply: dict[str, Any] | None) -> int:
    """The error number of an answer; 0 for a result, -1 when the agent hung up."""
    if reply is None:
        return -1
    return int(reply["error"]["wsa"]) if "error" in reply else 0


def wrong_requests() -> Iterator[dict[str, Any]]:
    """Every operation with every member missing and with every wrong value, the others being right."""
    for op, members in MEMBERS.items():
        for name in members:
            others = {other: GOOD.get(other, 1) for other in members if other != name}
            yield {"op": op.strip(), **others}
            for value in WRONG:
                yield {"op": op.strip(), **others, name: value}
    for value in WRONG:
        yield {"op": value}
        yield {"op": "status", "s": 1, "id": value}


def encoded(request: dict[str, Any]) -> bytes:
    """As a hostile process writes it."""
    return json.dumps({"id": 1, **request}, ensure_ascii=False).encode("utf-8", "surrogatepass")


def garbage(seed: int) -> Iterator[bytes]:
    """Packets of every length class and type, and JSON that costs more than it looks."""
    generator = random.Random(seed)
    for length in (1, 2, 3, 7, 100, 1000, 4096, 65_535, 65_536, 65_537, 100_000):
        yield generator.randbytes(length)
        yield b"0" * length
        yield b" " * length
        yield b'"' + b"a" * length
    for part in (b"[", b'{"a":', b'[{"a":', b'{"id":[', b"[[],"):
        yield part * (65_000 // len(part))
    for depth in range(100, 5000, 97):
        yield b'{"id":1,"op":"status","s":' + b"[" * depth + b"]" * depth + b"}"
        yield b'{"id":' + b"[" * depth + b"]" * depth + b',"op":"ping"}'
        yield b'{"id":1,"op":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    for digits in (300, 4300, 4301, 60_000):
        yield b'{"id":' + b"9" * digits + b',"op":"status","s":1}'
        yield b'{"id":1,"op":"status","s":-' + b"9" * digits + b"}"
        yield b'{"id":1e' + b"9" * digits + b',"op":"status","s":1}'
    yield b'{"id":1,"op":"status",' + b",".join(b'"%d":0' % number for number in range(7000)) + b"}"
    yield b'{"id":1,"id":2,"op":"x","op":"status","s":1}'
    yield from (b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"null", b"NaN", b"{}", b'{"id":NaN,"op":"ping"}', b"\0" * 100)
    for _ in range(200):
        valid = bytearray(b'{"id":1,"op":"WSPSocket","af":2,"type":1,"protocol":0}')
        for _ in range(generator.randint(1, 4)):
            valid[generator.randrange(len(valid))] = generator.randrange(256)
        yield bytes(valid)


def throw(path: str | None, packets: Iterator[bytes], count: int = 8) -> int:
    """Send each packet, with ``count`` descriptors beside it, and read what comes; how many were sent."""
    sent = 0
    sock = connect(path)
    sock.settimeout(10)
    readable, writable = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [readable] * count))] if count else []
    for packet in packets:
        reply = None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendmsg([packet], rights)
            sent += 1
            reply, descriptors = answer(sock)
            for fd in descriptors:
                os.close(fd)
        if reply is None:
            sock.close()
            sock = connect(path)
            sock.settimeout(10)
    sock.close()
    os.close(readable)
    os.close(writable)
    return sent
