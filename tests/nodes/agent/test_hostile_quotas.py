"""A process wants 10,000 of everything: it gets what is its due, then WSAEMFILE or WSAENOBUFS, and all of it is taken
back when it is killed.
"""

import pytest

from fabric.topology.yaml_model import parse
from nodes.lab.process_engine import Lab
from tests.support.labs import FAST_PAIR, wait_until
from tests.support.puppet import Puppet

pytestmark = pytest.mark.live
WSAEMFILE, WSAENOBUFS = 10024, 10055
_HOARD = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sock, held, made, heard = attached(), [], [], {}
def want(count, *then):
    for _ in range(count):
        reply, descriptors = ask_fds(sock, "WSPSocket", af=2, type=1)
        held.extend(descriptors)
        number = wsa(reply)
        if not number:
            made.append(reply["result"]["s"])
            for op, members in then:
                number = number or wsa(ask(sock, op, s=reply["result"]["s"], **members))
        heard[number] = heard.get(number, 0) + 1
    return heard
"""


@pytest.mark.parametrize(
    ("count", "then"),
    [
        (10_000, ""),
        (1_500, "('WSPListen', {'backlog': 1024}),"),  # those beyond the quota do not get as far
        (1_500, "('WSPConnect', {'address': ['10.77.0.1', 7]}),"),
    ],
    ids=["sockets", "listeners", "pending connects"],
)
def test_ten_thousand_in_one_process(hostile, honest, agent, count, then):
    quota = agent.statistics()["limits"]["quotas"]["sockets_per_process"]
    puppet = hostile()
    memory = agent.memory()
    puppet.run(_HOARD)
    puppet.start(f"want({count}, {then})")
    honest.goes_on()
    assert puppet.result(120) == {"0": quota, str(WSAEMFILE): count - quota}
    honest.goes_on()
    assert honest.makes_a_socket() == "ok"
    assert agent.memory() < memory + (200 << 20)
    puppet.kill()
    wait_until(lambda: agent.statistics()["descriptors"] <= 2, 60, agent.statistics)


def test_a_quota_of_the_topology(tmp_path):
    text = FAST_PAIR.replace("server: {}", "server: {sockets-per-process: 3, sockets: 4}")
    with Lab(parse(text, "quotas"), tmp_path) as lab:
        puppets = [Puppet(lab, "server"), Puppet(lab, "server"), Puppet(lab, "client")]
        for puppet, expected in zip(puppets, ([0] * 3 + [WSAEMFILE], [0] + [WSAENOBUFS] * 3, [0] * 4), strict=True):
            puppet.run("from tests.support.hostile import *")
            code = "sock = attached(); [wsa(ask(sock, 'WSPSocket', af=2, type=1)) for _ in range(4)]"
            assert puppet.run(code) == expected
        for puppet in puppets:
            puppet.close()


def test_a_crowd_meets_the_quota_of_the_host(hostile, honest, agent):
    quotas = agent.statistics()["limits"]["quotas"]
    crowd = [hostile() for _ in range(quotas["sockets"] // quotas["sockets_per_process"] + 1)]
    heard = [puppet.run(_HOARD + f"want({quotas['sockets_per_process']})", 60) for puppet in crowd]
    assert set().union(*heard) == {"0", str(WSAENOBUFS)}
    assert sum(each.get("0", 0) for each in heard) <= quotas["sockets"]
    honest.goes_on()
    assert honest.makes_a_socket() == WSAENOBUFS
    crowd.pop().kill()
    crowd.pop().kill()
    wait_until(lambda: honest.makes_a_socket() == "ok", 60)


def test_a_killed_process_with_a_thousand_connections(hostile, honest, agent):
    """Both ends in hostile hands: one listens and never accepts, the other connects and never reads."""
    listener, puppet = hostile("client"), hostile()
    listener.run("l = socket.create_server(('', 7997), backlog=1024)")
    puppet.run(_HOARD)
    heard = puppet.run("want(1000, ('WSPConnect', {'address': ['10.77.0.1', 7997]}))", 120)
    assert heard == {"0": 1000}
    honest.goes_on()
    puppet.start("for fd in held:\n  try: os.write(fd, b'x' * 1000)\n  except OSError: pass")
    honest.goes_on()
    puppet.kill()
    honest.goes_on()
    wait_until(lambda: agent.statistics()["endpoints"] <= 1, 60, agent.statistics)
    listener.kill()


def test_a_listener_at_the_quota_refuses_and_the_agent_lives(hostile, honest, agent):
    """What waits at a listener is its process's too."""
    puppet, caller = hostile(), hostile("client")
    puppet.run(_HOARD)
    quota = agent.statistics()["limits"]["quotas"]["sockets_per_process"]
    puppet.run("listener, fd = new_socket(sock); ask(sock, 'WSPBind', s=listener, address=['', 7996])")
    puppet.run("ask(sock, 'WSPListen', s=listener, backlog=100)")
    assert puppet.run(f"want({quota})", 60) == {"0": quota - 1, str(WSAEMFILE): 1}
    assert caller.run("socket.socket().connect_ex(('server', 7996))") != 0
    puppet.run("ask(sock, 'WSPCloseSocket', s=made[0])")
    assert caller.run("c = socket.create_connection(('server', 7996), timeout=20); 0") == 0
    assert puppet.run("wsa(ask_fds(sock, 'WSPSocket', af=2, type=1)[0])") == WSAEMFILE  # the one that waits
    assert puppet.run("wsa(ask_fds(sock, 'WSPAccept', s=listener)[0])") == 0  # and can be had
    honest.goes_on()


def test_closing_leaves_no_crowd_behind(hostile, honest, agent):
    """Close and connect again, faster than the peer finishes: what lingers is bounded too."""
    listener, puppet = hostile("client"), hostile()
    listener.run("l = socket.create_server(('', 7995), backlog=1024)")
    puppet.run(_HOARD)
    puppet.start("""
for turn in range(3):
    numbers = []
    for _ in range(600):
        reply, descriptors = ask_fds(sock, "WSPSocket", af=2, type=1)
        for fd in descriptors: os.close(fd)
        numbers.append(reply["result"]["s"])
        ask(sock, "WSPConnect", s=numbers[-1], address=["10.77.0.1", 7995])
    for s in numbers: ask(sock, "WSPCloseSocket", s=s)
""")
    honest.goes_on()
    puppet.result(120)
    assert agent.statistics()["lingering"] <= agent.statistics()["limits"]["quotas"]["lingering"]
    honest.goes_on()
    listener.kill()  # resets all that it never accepted
