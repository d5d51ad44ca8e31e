"""Sends back whatever it gets: ``python -m nodes.apps.echo_server --port 7000``. One connection after the other."""

import argparse
import sys

from provider import socket

CHUNK = 1 << 16


def main() -> int:
    """Entry point; runs until it is ended, or after ``--once`` connection."""
    parser = argparse.ArgumentParser(prog="echo_server", description=__doc__)
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--once", action="store_true", help="end after one connection")
    options = parser.parse_args()
    with socket.create_server(("", options.port)) as server:
        print(f"listening on port {options.port}", flush=True)
        while True:
            connection, peer = server.accept()
            with connection:
                print(f"{peer[0]}:{peer[1]} connected", flush=True)
                try:
                    while data := connection.recv(CHUNK):
                        connection.sendall(data)
                except ConnectionError as error:
                    print(f"{peer[0]}:{peer[1]} went away: {error}", flush=True)
            if options.once:
                return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
