"""The stream classes of the standard library's own socket tests hold on ``provider.socket``."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodes.lab.process_engine import environment_on

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        importlib.util.find_spec("test.test_socket") is None, reason="this Python came without its own tests"
    ),
]
GROUPS = (
    ("FileObjectClassTestCase", "UnicodeReadFileObjectClassTestCase", "UnicodeWriteFileObjectClassTestCase"),
    ("UnicodeReadWriteFileObjectClassTestCase", "LineBufferedFileObjectClassTestCase", "BufferIOTest"),
    ("SmallBufferedFileObjectClassTestCase", "UnbufferedFileObjectClassTestCase", "TCPCloserTest"),
    ("NetworkConnectionNoServer", "NetworkConnectionAttributesTest", "NetworkConnectionBehaviourTest"),
    ("BasicTCPTest", "NonBlockingTCPTests", "SendmsgTCPTest", "RecvmsgTCPTest", "RecvmsgIntoTCPTest"),
    ("SendfileUsingSendTest", "TCPTimeoutTest", "InterruptedSendTimeoutTest"),
    ("ContextManagersTest", "CreateServerTest", "TestSocketSharing"),
    ("CreateServerFunctionalTest",),
)
"""Classes that one process runs; the processes run side by side."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcomes(lab):
    environment = environment_on(lab.record, "client")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])

    def run(group):
        command = [sys.executable, "-m", "tests.conformance.stdlib_runner", *group]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=90, cwd=ROOT
        )
        assert done.returncode == 0, f"{group}: {done.stderr[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(len(GROUPS)) as pool:
        return {name: outcome for found in pool.map(run, GROUPS) for name, outcome in found.items()}


def test_all_pass(outcomes):
    """But those that this machine or this Python does not have."""
    assert {
        name: told for name, told in outcomes.items() if told != "passed" and not told.startswith("skipped: ")
    } == {}


def test_few_are_skipped(outcomes):
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    assert passed >= 150
    assert passed / len(outcomes) >= 0.95
