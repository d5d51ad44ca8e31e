"""An agent that may open no more files neither ends nor spins: who wants more is refused, what is there goes on."""

import resource
import subprocess
import sys

import pytest

from tests.support.labs import wait_until

pytestmark = pytest.mark.live


def test_no_descriptor_for_a_socket_or_a_caller(hostile, honest, agent):
    puppet = hostile()
    puppet.run("held = [attached() for _ in range(4)]")
    before = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    files = agent.held()["files"]
    try:
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (files + 3, before[1]))
        heard = puppet.run("[wsa(ask_fds(held[n % 4], 'WSPSocket', af=2, type=1)[0]) for n in range(100)]")
        assert set(heard[3:]) == {10055}
        assert honest.makes_a_socket() == 10055
        puppet.start("""
import socket as stdlib
callers = []
for _ in range(300):
    sock = stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_SEQPACKET); sock.setblocking(False)
    try: sock.connect(os.environ["SANLOOM_AGENT"])
    except OSError: pass
    callers.append(sock)""")
        honest.goes_on()
        puppet.result()
        honest.goes_on()
    finally:
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: agent.statistics()["short_of_files"], 20, agent.statistics)
    wait_until(lambda: honest.makes_a_socket() == "ok")
    puppet.run("for sock in callers: sock.close()")


def test_quotas_follow_from_the_hard_limit():
    """The soft limit is raised, and what the agent gives away leaves it descriptors of its own."""
    code = "from nodes.agent.limits import *; print(open_files(), limits_for(open_files()).quotas.sockets)"
    shown = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 300; ulimit -Hn 1500; exec "$@"', "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    files, sockets = map(int, shown.stdout.split())
    assert files == 1500
    assert 300 < sockets < 600
