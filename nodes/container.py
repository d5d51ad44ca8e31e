"""What a container of the image runs: ``python -m nodes.container ROLE``, a role of ROLES, ``keys`` or ``control``.

``host`` and ``network-switch`` (and ``generator``, a host for measurements) write the node's configuration from the
environment (see ``docker/README.md``) and become the node. ``keys`` makes CURVE keys for all nodes, once, into
``/keys/NODE`` (one volume each): the node's own
secret key, readable by the node's user only, and everybody's public key. Keys that are there already are kept, so
that a lab can be started again.

``control`` does nothing but be there: from it the nodes are reached that run on other machines
(:mod:`nodes.control.reach`). Where the public keys name a controller, every node lets it in.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from fabric.errors import SanloomError, UsageError
from fabric.live.curve import Credentials, new_keys, read_secret, write_secret

ROLES = {"host": "nodes.agent", "network-switch": "nodes.netswitch", "generator": "nodes.bench.generator"}
RUNTIME, DATA, KEYS = Path("/run/sanloom"), Path("/var/lib/sanloom/run"), Path("/var/lib/sanloom/keys")
READY = RUNTIME / "ready"
KEY_VOLUMES = Path("/keys")
SECRET, PUBLIC = "secret.key", "public.json"
PORT = 4793
CONTROL, CONTROL_PORT = "control", 4794
USER_ID = 10001


def main() -> int:
    """Entry point; status 2 for a wrong environment."""
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if role == "keys":
            make_keys(KEY_VOLUMES, sorted(_topology_nodes()))
            return 0
        if role == CONTROL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            while True:
                signal.pause()
        if role not in ROLES:
            raise UsageError(f"{role!r} is no role; it is one of keys, {CONTROL}, {', '.join(ROLES)}")
        become_node(role)
    except SanloomError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def make_keys(volumes: Path, nodes: list[str]) -> None:
    """Keys for ``nodes``, each in its own folder of ``volumes``."""
    public = {}
    for node in nodes:
        path = volumes / node / SECRET
        if not path.exists():
            write_secret(new_keys(), path)
        public[node] = read_secret(path).public
        _give_to_node(path)
    for node in nodes:
        path = volumes / node / PUBLIC
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(public))
        temporary.replace(path)
        _give_to_node(path)
        _give_to_node(volumes / node)


def become_node(role: str) -> NoReturn:
    """Write the configuration and run the node in our place."""
    node, name = _variable("SANLOOM_NODE"), _variable("SANLOOM_LAB")
    topology = json.loads(_variable("SANLOOM_TOPOLOGY"))
    nodes = [*topology["hosts"], *topology["network_switches"]]
    if node not in nodes:
        raise UsageError(f"SANLOOM_NODE: the topology has no node {node!r}; it has {', '.join(nodes)}")
    public = _public_keys()
    config = {
        "lab": name,
        "node": node,
        "run_id": name,
        "topology": topology,
        "seed": int(os.environ.get("SANLOOM_SEED") or topology["seed"]),
        "directory": str(RUNTIME),
        "journal": str(DATA / f"{node}.jsonl"),
        "capture": str(DATA / f"{node}.pcapng") if os.environ.get("SANLOOM_CAPTURE") == "1" else None,
        "mode": os.environ.get("SANLOOM_MODE") or "suspend",
        "tcp": {
            "bind": f"tcp://*:{PORT}",
            "addresses": {other: f"tcp://{other}:{PORT}" for other in nodes},
            "secret_key": str(KEYS / SECRET),
            "public_keys": {other: public[other] for other in nodes},
        },
    }
    for leftover in RUNTIME.iterdir():  # of a life before a restart
        leftover.unlink()
    path = RUNTIME / f"{node}.config"
    path.write_text(json.dumps(config))
    if CONTROL in public:  # on Swarm, where applications have no containers of their own beside their host's
        _start_apart([sys.executable, "-P", "-m", "nodes.control.remote_server"])
        if topology["hosts"].get(node, {}).get("applications"):
            _start_apart([sys.executable, "-P", "-m", "nodes.lab.application_runner", "--host", node])
    arguments = [sys.executable, "-P", "-m", ROLES[role], "--config", str(path), "--ready-file", str(READY)]
    os.execv(sys.executable, arguments)


def credentials_for(name: str) -> Credentials:
    """Our own keys and those of ``name``, a node or the controller, alone. UsageError if there are none."""
    public = _public_keys()
    if name not in public:
        raise UsageError(f"there is no key of {name!r}; there are those of {', '.join(public)}")
    return Credentials(read_secret(KEYS / SECRET), {name: public[name]})


def _public_keys() -> dict[str, str]:
    try:
        public: dict[str, str] = json.loads((KEYS / PUBLIC).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{KEYS / PUBLIC}: no keys ({error}); run the role keys first") from None
    return public


def _start_apart(arguments: list[str]) -> None:
    """Start a process whose parent is the container's first process, which reaps it."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(arguments[0], arguments)
        os._exit(0)
    os.waitpid(child, 0)


def _topology_nodes() -> list[str]:
    topology = json.loads(_variable("SANLOOM_TOPOLOGY"))
    return [*topology["hosts"], *topology["network_switches"]]


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise UsageError(f"{name} is not set in the environment; sanloom render writes it")
    return value


def _give_to_node(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, USER_ID, USER_ID)


if __name__ == "__main__":
    sys.exit(main())
