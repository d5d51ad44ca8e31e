"""A process on a host that does what the test says, step by step: real sockets, real pids, real deaths."""

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from nodes.lab.process_engine import Lab

_PUPPET = """
import ast, base64, json, os, select, sys, threading, time
from provider import socket
space = dict(globals())
def pack(value):
    if isinstance(value, (bytes, bytearray)):
        return {"b64": base64.b64encode(value).decode()}
    try:
        json.dumps(value)
        return {"value": value}
    except TypeError:
        return {"value": repr(value)}
for line in sys.stdin:
    try:
        tree = ast.parse(json.loads(line))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "puppet", "exec"), space)
        answer = pack(eval(compile(ast.Expression(last.value), "puppet", "eval"), space) if last else None)
    except BaseException as error:
        kind = [c.__name__ for c in type(error).__mro__]
        answer = {"error": kind, "wsa": getattr(error, "winerror", None), "text": str(error)}
    print(json.dumps(answer), flush=True)
"""
SECONDS = 30.0


class PuppetError(Exception):
    """The code raised. ``kinds``: names of the exception's classes; ``wsa``: its WSA number, if it has one."""

    def __init__(self, kinds: list[str], wsa: int | None, text: str) -> None:
        super().__init__(f"{kinds[0]} ({wsa}): {text}")
        self.kinds, self.wsa, self.text = kinds, wsa, text


class Puppet:
    """``run`` executes code in the process and returns the value of its last expression."""

    def __init__(self, lab: Lab, host: str) -> None:
        self._process = lab.command(
            host, sys.executable, "-c", _PUPPET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1
        )
        self.pid = self._process.pid

    def start(self, code: str, **names: Any) -> None:
        """Begin; ``result`` waits for the end. ``names`` are set first (anything with an exact repr)."""
        assert self._process.stdin is not None
        given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        self._process.stdin.write(json.dumps(given + code) + "\n")
        self._process.stdin.flush()

    def result(self, seconds: float = SECONDS) -> Any:
        """What the code begun last gave; PuppetError if it raised, EOFError if the process ended."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        assert ready, f"no answer within {seconds} s"
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the process ended")
        answer = json.loads(line)
        if "error" in answer:
            raise PuppetError(answer["error"], answer["wsa"], answer["text"])
        return base64.b64decode(answer["b64"]) if "b64" in answer else answer["value"]

    def run(self, code: str, seconds: float = SECONDS, **names: Any) -> Any:
        """``start`` and ``result``."""
        self.start(code, **names)
        return self.result(seconds)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait(20)

    def stop(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def close(self) -> None:
        """End it in whatever state it is."""
        self._process.kill()
        self._process.wait(20)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


def until(puppet: Puppet, code: str, seconds: float = SECONDS) -> Any:
    """Run ``code`` again and again until it is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := puppet.run(code)):
        assert time.monotonic() < deadline, f"{code} is not true within {seconds} s"
    return value
