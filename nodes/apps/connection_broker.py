"""One port for many services: ``connection_broker broker --port 7000``, ``connection_broker service upper``.

A client connects to the broker and says in a first line which service it wants. The broker reads exactly that line, not
a byte more, and hands the connection to a process of that service on its host (WSPDuplicateSocket); then it is out of
the data path, and may even end. Services register with the broker, and again when it comes back. If a process does not
take the connection, control comes back (RETURN), and the next process of that service gets it.
"""

import argparse
import collections
import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable

from nodes.apps.meeting import hear, knock, open_door, pid_of
from provider import socket
from provider.client.any_socket import AnySocket

NAME = "broker"
LINE_MAX = 64
PATIENCE = 5.0
TAKEN = b"taken"
SERVICES: dict[str, Callable[[bytes], bytes]] = {"echo": lambda data: data, "upper": bytes.upper}
ready: dict[str, "queue.Queue[AnySocket]"] = collections.defaultdict(queue.Queue)
"""Channels to the processes of each service that can take a client now."""


def first_line(client: AnySocket) -> str:
    """Read up to the end of the first line and not a byte further. ValueError if there is none."""
    line = b""
    while not line.endswith(b"\n"):
        ahead = client.recv(LINE_MAX - len(line), socket.MSG_PEEK) if len(line) < LINE_MAX else b""
        if not ahead:
            raise ValueError("no first line that names a service")
        line += client.recv(ahead.find(b"\n") + 1 or len(ahead))
    return line.decode().strip()


def introduce(client: AnySocket) -> None:
    """Give a client to the service that it asks for."""
    with client:
        try:
            client.settimeout(PATIENCE)
            name = first_line(client)
            while name in ready:
                channel = ready[name].get(timeout=PATIENCE)
                if hand_over(client, channel):
                    ready[name].put(channel)
                    return
            client.sendall(f"no service {name!r}; there are: {', '.join(sorted(ready))}\n".encode())
        except queue.Empty:
            client.sendall(f"no process of service {name!r} is ready\n".encode())
        except (OSError, ValueError) as error:
            print(f"a client is gone: {error}", flush=True)


def hand_over(client: AnySocket, channel: AnySocket) -> bool:
    """Whether the process at the other end took the client; if not, the client is ours again."""
    try:
        channel.send(client.share(pid_of(channel)))
        if hear(channel) == TAKEN:
            return True
    except OSError as error:
        print(f"process {pid_of(channel)} took nothing: {error}", flush=True)
    channel.close()
    client.wait_for_return()
    return False


def welcome(channel: AnySocket) -> None:
    """A process says which service it is."""
    channel.settimeout(PATIENCE)
    if name := hear(channel).decode():
        ready[name].put(channel)


def each_in_a_thread(listener: AnySocket, handle: Callable[[AnySocket], None]) -> None:
    """Accept, for ever."""
    while True:
        accepted, _ = listener.accept()
        threading.Thread(target=handle, args=(accepted,), daemon=True).start()


def broker(port: int) -> None:
    """Serve clients, and services."""
    with socket.create_server(("", port)) as listener, open_door(NAME) as door:
        threading.Thread(target=each_in_a_thread, args=(door, welcome), daemon=True).start()
        print(f"listening on port {port}", flush=True)
        each_in_a_thread(listener, introduce)


def service(name: str) -> None:
    """Take clients from the broker; look for it when it is not there."""

    def serve(client: AnySocket) -> None:
        with client:
            try:
                while data := client.recv(1 << 16):
                    client.sendall(SERVICES[name](data))
            except ConnectionError as error:
                print(f"a client is gone: {error}", flush=True)

    while True:
        if (channel := knock(NAME)) is None:
            time.sleep(0.1)
            continue
        with channel, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be about to end
            channel.send(name.encode())
            while info := hear(channel):
                try:
                    client = socket.fromshare(info)
                except OSError as error:
                    print(f"too late: {error}", flush=True)
                    break
                with contextlib.suppress(OSError):  # the client is ours, whoever hears of it
                    channel.send(TAKEN)
                threading.Thread(target=serve, args=(client,), daemon=True).start()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="connection_broker", description=__doc__)
    parser.add_argument("role", choices=["broker", "service"])
    parser.add_argument("name", choices=sorted(SERVICES), nargs="?", default="echo")
    parser.add_argument("--port", type=int, default=7000)
    options = parser.parse_args()
    broker(options.port) if options.role == "broker" else service(options.name)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
