"""A lab in which one node's monotonic clock is a thousand seconds ahead, as that of another machine may be."""

import shutil
import subprocess
from typing import ClassVar

import pytest

from fabric.topology.yaml_model import parse
from nodes.lab.process_engine import Lab
from tests.support.labs import ECHO_CLIENT, ECHO_SERVER, FAST_PAIR, sanloom, wait_until

pytestmark = pytest.mark.live
SHIFTED = ("unshare", "--time", "--monotonic", "1000")


def why_not():
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run([*SHIFTED, "true"], capture_output=True, text=True, check=False, timeout=10)
    return done.stderr.strip() or "unshare fails" if done.returncode else None


@pytest.mark.skipif(why_not() is not None, reason=f"no time namespace can be made: {why_not()}")
def test_offsets_are_measured_and_the_lab_works(tmp_path):
    class ShiftedLab(Lab):
        wrappers: ClassVar = {"server": list(SHIFTED)}

    topology = FAST_PAIR.replace("100us", "50ms")  # long enough that an error of 5 ms is small
    with ShiftedLab(parse(topology, "fast"), tmp_path / "run") as lab:
        server = lab.command("server", "python", "-c", ECHO_SERVER, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            client = lab.command("client", "python", "-c", ECHO_CLIENT, stdout=subprocess.PIPE)
            assert client.communicate(timeout=30)[0] == "True\n"
            assert server.wait(20) == 0
        finally:
            server.kill()
            server.communicate()
        timed = ("server", "s1"), ("s1", "server")
        wait_until(lambda: all(lab.ask(a, "statistics")["neighbours"][b]["clock"] == "timestamps" for a, b in timed))
        shown = sanloom("ps").stdout
        assert "FRAMES TIMED BY" in shown
        assert "timestamps" in shown
        assert "s1->server by timestamps (error " in sanloom("doctor").stdout
        seen = {node: lab.ask(node, "statistics")["neighbours"] for node in ("client", "s1", "server")}
        assert seen["client"]["s1"]["clock"] == seen["s1"]["client"]["clock"] == "same"
        for ours, sign in ((seen["s1"]["server"], 1), (seen["server"]["s1"], -1)):
            assert ours["clock"] == "timestamps", ours
            assert abs(ours["offset_us"] - sign * 10**9) <= ours["error_us"] + 1
        assert all(lab.ask(node, "statistics")["lost_outside_model"] == 0 for node in seen)
