"""A server that is replaced while it runs: ``python -m nodes.apps.zero_downtime_restart --port 7000``, and again.

Whoever starts second finds the first by its name on this host and takes everything over: the listener with its backlog,
then every live connection with what the first has read and not yet answered. It uses none of it until the first has
let go; if it dies before, or does not work at all, control of everything returns to the first, which goes on. Clients
see a delay, and nothing else. The service is an echo.
"""

import argparse
import contextlib
import os
import selectors
import signal
import sys

from nodes.apps.meeting import hear, knock, open_door, pid_of
from provider import socket
from provider.client.any_socket import AnySocket

NAME = "zero-downtime"
CHUNK = 1 << 14
PATIENCE = 10.0
"""Seconds for the new process to take one thing after the other; one that does not is as good as dead."""
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
READY = b"ready"
Clients = dict[AnySocket, bytes]
"""Every live connection, and what was read from it and is not yet sent back: all that a successor has to know."""


def take_over(old: AnySocket) -> tuple[AnySocket | None, Clients]:
    """Everything that the process at the other end has; no listener if it has gone meanwhile."""
    listener: AnySocket | None = None
    clients: Clients = {}
    while (message := hear(old)) not in (READY, b""):
        taken = socket.fromshare(message[: socket.SHARE_SIZE])
        if listener is None:
            listener = taken
        else:
            clients[taken] = message[socket.SHARE_SIZE :]
    with contextlib.suppress(BrokenPipeError):
        old.send(READY)
        hear(old)  # it lets go: everything is ours
    return listener, clients


def hand_over(new: AnySocket, listener: AnySocket, clients: Clients) -> bool:
    """Give everything to the process at the other end. False: it has failed, and everything is ours again."""
    successor = pid_of(new)
    new.settimeout(PATIENCE)
    try:
        new.send(listener.share(successor))
        for connection, unsent in clients.items():
            try:
                message = connection.share(successor) + unsent
            except OSError as error:
                print(f"stays here: {error}", flush=True)  # its client has just gone; or the new process, see below
            else:
                new.send(message)
        new.send(READY)
        if hear(new) == READY:
            for sock in (listener, *clients):
                sock.close()  # before the new process uses it: a connection ends with its last descriptor
            return True
    except OSError as error:
        print(f"process {successor} failed: {error}", flush=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(successor, signal.SIGKILL)
    listener.wait_for_return()
    for connection in list(clients):
        try:
            connection.wait_for_return()
        except OSError:
            del clients[connection]  # its client has gone meanwhile
    return False


def echo(connection: AnySocket, unsent: bytes) -> bytes | None:
    """Send back what can be sent back now; what is left of it, ``None`` when the connection is over."""
    try:
        unsent = unsent or connection.recv(CHUNK)
        return unsent[connection.send(unsent) :] if unsent else None
    except BlockingIOError:
        return unsent
    except ConnectionError:
        return None


def serve(door: AnySocket, listener: AnySocket, clients: Clients) -> AnySocket:
    """Serve until somebody knocks at the door; the channel to it."""
    with selectors.DefaultSelector() as selector:
        for sock in (door, listener, *clients):
            sock.setblocking(False)
            selector.register(sock, WRITE if clients.get(sock) else READ, sock)
        while True:
            for key, _ in selector.select():
                sock = key.data
                if sock is door:
                    accepted: AnySocket = door.accept()[0]
                    return accepted
                if sock is listener:
                    with contextlib.suppress(BlockingIOError):
                        connection, _ = listener.accept()
                        connection.setblocking(False)
                        clients[connection] = b""
                        selector.register(connection, READ, connection)
                elif (unsent := echo(sock, clients[sock])) is not None:
                    clients[sock] = unsent
                    selector.modify(sock, WRITE if unsent else READ, sock)
                else:
                    selector.unregister(sock)
                    del clients[sock]
                    sock.close()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="zero_downtime_restart", description=__doc__)
    parser.add_argument("--port", type=int, default=7000)
    options = parser.parse_args()
    listener: AnySocket | None = None
    clients: Clients = {}
    while listener is None and (old := knock(NAME)) is not None:
        with old:
            listener, clients = take_over(old)
    listener = listener or socket.create_server(("", options.port))
    with open_door(NAME) as door:
        print(f"process {os.getpid()} is listening, {len(clients)} connections taken over", flush=True)
        while True:
            with serve(door, listener, clients) as successor:
                if hand_over(successor, listener, clients):
                    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
