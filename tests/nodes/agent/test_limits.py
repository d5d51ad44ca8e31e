"""Limits of an agent: never more than its descriptors allow, whatever is wished for."""

from hypothesis import given
from hypothesis import strategies as st

from fabric.topology.spec import SOCKETS_MAX, SOCKETS_PER_PROCESS_MAX
from nodes.agent.limits import FILES_PER_SOCKET, OWN_FILES, limits_for
from provider.sockets_switch.quotas import PER_HOST_MAX, PER_PROCESS_MAX

WISH = st.none() | st.integers(1, 20_000)


@given(st.integers(0, 2_000_000), WISH, WISH)
def test_all_limits_together_fit_the_descriptors(files, sockets, per_process):
    found = limits_for(files, sockets, per_process)
    quotas = found.quotas
    given_away = found.connections + found.processes + FILES_PER_SOCKET * quotas.sockets
    assert given_away + OWN_FILES <= max(files, OWN_FILES + 8 * 16)
    assert 1 <= quotas.sockets_per_process <= min(quotas.sockets, PER_PROCESS_MAX)
    assert quotas.sockets <= PER_HOST_MAX
    assert found.connections_per_process <= found.connections
    if sockets is not None:
        assert quotas.sockets <= sockets
    if per_process is not None:
        assert quotas.sockets_per_process <= per_process


def test_on_a_usual_machine_the_defaults_hold():
    for files in (20_000, 524_288, 1 << 20):
        found = limits_for(files)
        assert (found.quotas.sockets_per_process, found.quotas.sockets) == (1024, 4096)
        assert (found.connections, found.connections_per_process) == (1024, 256)


def test_a_poor_machine_gives_less_and_one_process_at_most_half():
    found = limits_for(1024)
    assert (found.quotas.sockets_per_process, found.quotas.sockets) == (120, 240)


def test_the_topology_allows_what_an_agent_can_give():
    assert (SOCKETS_MAX, SOCKETS_PER_PROCESS_MAX) == (PER_HOST_MAX, PER_PROCESS_MAX)
