"""What this machine lacks is one sentence and exit status 3, whatever command meets it."""

import errno
import os
import subprocess

import pytest

from fabric.errors import EnvironmentLacks
from nodes.cli import main as cli
from nodes.lab.docker_cli import explain
from tests.support.labs import sanloom


@pytest.mark.parametrize("number", sorted(cli.REMEDIES))
def test_the_system_refuses(monkeypatch, capsys, number):
    def refuse(**_):
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr(cli.cli, "main", refuse)
    assert cli.main() == 3
    told = capsys.readouterr().err
    assert told.startswith(f"sanloom: {os.strerror(number)} (some/file): ")
    assert len(told.splitlines()) == 1


def test_our_own_faults_are_not_blamed_on_the_machine(monkeypatch):
    def fail(**_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main()


@pytest.mark.live
def test_a_results_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = sanloom("up", "pair", "-d", "--out", str(tmp_path / "file" / "runs"))
    assert done.returncode == 2, done.stderr
    assert "file/runs: no folder for results can be made there: Not a directory" in done.stderr


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "you may not use the Docker engine",
        ),
        ("failed to copy files: write /app/x: no space left on device", "the disk of the Docker engine is full"),
        (
            "Error response from daemon: driver failed programming external connectivity on endpoint x:"
            " Bind for 127.0.0.1:4794 failed: port is already allocated",
            "a port is in use already",
        ),
        ("Error response from daemon: No such image: sanloom:9", "the image is missing"),
        ("docker: 'compose' is not a docker command.", "Docker Compose v2 is not installed"),
        ("Cannot connect to the Docker daemon at tcp://x. Is the docker daemon running?", "no Docker engine answers"),
    ],
)
def test_what_the_engine_says_becomes_what_to_do(said, meaning):
    error = explain(("compose", "up"), f"some warning\n{said}\n")
    assert isinstance(error, EnvironmentLacks)
    assert str(error).startswith(meaning)
    assert said in str(error)


@pytest.mark.live
def test_an_address_in_use(tmp_path):
    """A foreign program on the port of a node of every loopback network: whichever the lab draws."""
    code = (
        "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
        "s.bind(('0.0.0.0', 4793)); s.listen(); print('bound', flush=True); input()"
    )
    with subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as foreign:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == b"bound\n"
        done = sanloom("up", "pair", "-d", "--transport", "tcp", "--out", str(tmp_path / "runs"))
        foreign.communicate(b"\n", timeout=20)
    assert done.returncode == 3, done.stderr
    assert "Address already in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1
