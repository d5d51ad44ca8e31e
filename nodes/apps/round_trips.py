"""Measures round trips to an echo server over one SAN connection: ``python -m nodes.apps.round_trips HOST:PORT``."""

import argparse
import sys
import time

from provider import socket


def main() -> int:
    """Entry point; status 1 if the server ended early or sent something else back."""
    parser = argparse.ArgumentParser(prog="round_trips", description=__doc__)
    parser.add_argument("address", help="HOST:PORT of an echo server")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="bytes per message")
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between two messages")
    parser.add_argument("--say", metavar="TEXT", help="a first line to send, as the connection broker wants one")
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    times = []
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        if options.say is not None:
            connection.sendall(f"{options.say}\n".encode())
        for number in range(1, options.count + 1):
            message = number.to_bytes(4, "big") * (options.size // 4 + 1)
            began = time.perf_counter()
            connection.sendall(message)
            left = message
            while left:
                data = connection.recv(len(left))
                if not data or not left.startswith(data):
                    print("the server ended early" if not data else "other bytes came back", file=sys.stderr)
                    return 1
                left = left[len(data) :]
            times.append((time.perf_counter() - began) * 1000)
            print(f"{len(message)} bytes back from {host} in {times[-1]:.2f} ms", flush=True)
            if number < options.count:
                time.sleep(options.interval)
    mean = sum(times) / len(times)
    print(f"{len(times)} round trips: {min(times):.2f} / {mean:.2f} / {max(times):.2f} ms (min/mean/max)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
