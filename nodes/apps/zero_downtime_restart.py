"""A server that is replaced while it runs: ``python -m nodes.apps.zero_downtime_restart --port 7000``, and again.

Whoever starts second finds the first by the name of the service on this host, and takes everything over: the listener
with its backlog, then every live connection with what the first has read and not yet answered. It uses none of it until
the first has ended; so if the second one dies on the way, or does not work at all, control of everything returns to the
first, which goes on. Clients see a delay, and nothing else. The service is an echo.
"""

import argparse
import selectors
import sys
from dataclasses import dataclass

from nodes.apps.meeting import hear, knock, open_door, pid_of
from provider import socket
from provider.client.any_socket import AnySocket

NAME = "zero-downtime"
CHUNK = 1 << 14
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
READY = b"ready"


@dataclass(eq=False)
class Client:
    """A live connection, and what a successor has to know of it."""

    connection: AnySocket
    unsent: bytes = b""
    finished: bool = False

    def step(self, events: int) -> int:
        """Echo what can be echoed now; the events to wait for next, 0 when the connection is over."""
        try:
            if events & READ and not self.unsent:
                self.unsent = self.connection.recv(CHUNK)
                self.finished = not self.unsent
            if self.unsent:
                self.unsent = self.unsent[self.connection.send(self.unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            return 0
        return WRITE if self.unsent else 0 if self.finished else READ


def take_over(old: AnySocket) -> tuple[AnySocket | None, list[Client]]:
    """Everything that the process at the other end has; no listener if it had none or is already gone."""
    listener, clients = None, []
    while (message := hear(old)) not in (READY, b""):
        taken = socket.fromshare(message[: socket.SHARE_SIZE])
        if listener is None:
            listener = taken
        else:
            clients.append(Client(taken, message[socket.SHARE_SIZE :]))
    if listener is not None:
        old.send(READY)
        hear(old)  # it ends: everything is ours
    return listener, clients


def hand_over(new: AnySocket, listener: AnySocket, clients: list[Client]) -> bool:
    """Give everything to the process at the other end. False: it has failed, and everything is ours again."""
    try:
        new.send(listener.share(pid_of(new)))
        for client in clients:
            try:
                new.send(client.connection.share(pid_of(new)) + client.unsent)
            except ConnectionError:
                raise
            except OSError as error:
                print(f"not handed over: {error}", flush=True)  # its peer has just gone
        new.send(READY)
        if hear(new) == READY:
            return True
    except OSError as error:
        print(f"the new process failed: {error}", flush=True)
    for sock in (listener, *(client.connection for client in clients)):
        try:
            sock.wait_for_return()
        except OSError as error:
            print(f"lost: {error}", flush=True)
    return False


def serve(listener: AnySocket, clients: list[Client]) -> None:
    """Serve until somebody has taken everything over."""
    with open_door(NAME) as door, selectors.DefaultSelector() as selector:
        for sock in (listener, *(client.connection for client in clients)):
            sock.setblocking(False)
        while True:
            selector.register(door, READ)
            selector.register(listener, READ)
            for client in clients:
                selector.register(client.connection, WRITE if client.unsent else READ, client)
            successor = echo(door, listener, clients, selector)
            for key in list(selector.get_map().values()):  # what returns has a fresh channel under its number
                selector.unregister(key.fileobj)
            with successor:
                if hand_over(successor, listener, clients):
                    return


def echo(door: AnySocket, listener: AnySocket, clients: list[Client], selector: selectors.BaseSelector) -> AnySocket:
    """Serve until somebody knocks; the channel to it."""
    while True:
        for key, events in selector.select():
            client = key.data
            if key.fileobj is door:
                return door.accept()[0]
            if key.fileobj is listener:
                try:
                    client = Client(listener.accept()[0])
                except BlockingIOError:
                    continue
                client.connection.setblocking(False)
                selector.register(client.connection, READ, client)
                clients.append(client)
            elif wanted := client.step(events):
                selector.modify(client.connection, wanted, client)
            else:
                selector.unregister(client.connection)
                clients.remove(client)
                client.connection.close()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="zero_downtime_restart", description=__doc__)
    parser.add_argument("--port", type=int, default=7000)
    options = parser.parse_args()
    listener, clients = None, []
    while listener is None and (old := knock(NAME)) is not None:
        with old:
            listener, clients = take_over(old)
    print(f"listening on port {options.port}, {len(clients)} connections taken over", flush=True)
    serve(listener or socket.create_server(("", options.port)), clients)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
