"""Where processes of one host meet: AF_UNIX sockets beside the agent's, one packet per message.

A message is the 628 bytes of a hand-over, with or without something behind them, or a word.
"""

import contextlib
import os
import struct

from provider import socket
from provider.client.agent_connection import agent_path
from provider.client.any_socket import AnySocket

MESSAGE_MAX = 1 << 17


def open_door(name: str) -> AnySocket:
    """Listen for processes of this host that want to meet ``name``; whoever had the name before has it no more."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"{agent_path()}.{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    door.bind(path)
    door.listen()
    return door


def knock(name: str) -> AnySocket | None:
    """A channel to the process of this host that has the name; ``None`` if there is none."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(f"{agent_path()}.{name}")
    except (FileNotFoundError, ConnectionRefusedError):
        channel.close()
        return None
    return channel


def pid_of(channel: AnySocket) -> int:
    """The process at the other end, by the kernel's word."""
    pid, _uid, _gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def hear(channel: AnySocket) -> bytes:
    """The next message; empty when the other process has closed its end, or has died with a message unread."""
    try:
        return channel.recv(MESSAGE_MAX)
    except ConnectionResetError:
        return b""
