"""A topology -> a stack file for ``docker stack deploy``, and the CURVE keys that it refers to.

One service per node with one task, on one overlay network. There is no start order on Swarm: nodes find one another by
service name and wait. Secret keys are Swarm secrets, one per node and given to that node only; public keys are a Swarm
config. Both are made from files in ``keys/`` beside the stack file, which can be deleted after the deployment.

One more service, the controller, runs beside whoever manages the swarm and holds a key of its own: a manager cannot
reach into containers of other machines, but from the controller all nodes can be reached (:mod:`nodes.control.reach`).
"""

import json
from pathlib import Path

from fabric.live.curve import new_keys, write_secret
from fabric.topology.spec import Topology
from nodes.container import CONTROL, KEYS, PUBLIC, SECRET, USER_ID
from nodes.lab.compose_file import DEFAULT_IMAGE, LABEL_KIND, LABEL_LAB, LABEL_NODE, MEMORY, topology_variable

KEY_FOLDER = "keys"
_CONFINED = ("    stop_grace_period: 10s", "    cap_drop: [ALL]", "    networks: [fabric]")


def write_keys(topology: Topology, folder: Path) -> None:
    """Keys for every node and the controller into ``folder``, mode 0700; FileExistsError if a secret is there
    already.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = {}
    for node in [*topology.network_switches, *topology.hosts, CONTROL]:
        pair = new_keys()
        write_secret(pair, folder / f"{node}.key")
        public[node] = pair.public
    (folder / PUBLIC).write_text(json.dumps(public))


def render_swarm(
    topology: Topology,
    *,
    lab: str | None = None,
    image: str = DEFAULT_IMAGE,
    mode: str = "suspend",
    seed: int | None = None,
    capture: bool = False,
    host_role: str = "host",
    encrypted: bool = False,
    placement: dict[str, str] | None = None,
    manager: str = "node.role == manager",
) -> str:
    """The text of the file. ``encrypted`` encrypts the overlay network too (CURVE is always there); ``placement``: node
    -> a constraint such as ``node.labels.rack == 1``; without one Swarm spreads the nodes. ``manager`` is the
    constraint for the controller.
    """
    name = lab or topology.name
    nodes = [*topology.network_switches, *topology.hosts]
    lines = [
        f"# The lab {name} for Docker Swarm, rendered by `sanloom render`. Run it with:",
        f"#   docker stack deploy -c THIS_FILE sanloom-{name}",
        'version: "3.8"',
        "",
        "x-environment: &environment",
        f"  SANLOOM_LAB: {name}",
        f"  SANLOOM_MODE: {mode}",
        f'  SANLOOM_SEED: "{topology.seed if seed is None else seed}"',
        f'  SANLOOM_CAPTURE: "{int(capture)}"',
        f"  SANLOOM_TOPOLOGY: {topology_variable(topology)}",
        "",
        "services:",
    ]
    for node in nodes:
        kind = "host" if node in topology.hosts else "network-switch"
        constraint = (placement or {}).get(node)
        lines += [
            f"  {node}:",
            f"    image: {image}",
            "    init: true",
            f"    command: [{host_role if kind == 'host' else kind}]",
            f"    hostname: {node}",
            *_CONFINED,
            # Swarm gives a task a name only once it is healthy, and nodes find each other by name: healthy means here
            # that the node serves, not that it has heard its neighbours.
            f'    healthcheck: {{test: ["CMD", "test", "-S", "/run/sanloom/{node}.control"], interval: 1s}}',
            "    environment:",
            "      <<: *environment",
            f"      SANLOOM_NODE: {node}",
            *([f"      SANLOOM_AGENT: /run/sanloom/{node}.agent"] if kind == "host" else []),
            *_keys_and_deployment(name, node, kind, constraint),
        ]
    lines += [
        f"  {CONTROL}:",
        f"    image: {image}",
        "    init: true",
        f"    command: [{CONTROL}]",
        *_CONFINED,
        "    healthcheck: {disable: true}",
        *_keys_and_deployment(name, CONTROL, CONTROL, manager),
    ]
    options = "driver: overlay, internal: true" + (', driver_opts: {encrypted: ""}' if encrypted else "")
    lines += ["", "networks:", f"  fabric: {{{options}}}"]
    lines += ["", "secrets:", *[f"  {node}: {{file: ./{KEY_FOLDER}/{node}.key}}" for node in [*nodes, CONTROL]]]
    lines += ["", "configs:", f"  public: {{file: ./{KEY_FOLDER}/{PUBLIC}}}"]
    return "\n".join(lines) + "\n"


def _keys_and_deployment(lab: str, service: str, kind: str, constraint: str | None) -> list[str]:
    return [
        "    secrets:",
        f"      - {{source: {service}, target: {KEYS / SECRET}, uid: '{USER_ID}', gid: '{USER_ID}', mode: 0400}}",
        "    configs:",
        f"      - {{source: public, target: {KEYS / PUBLIC}, uid: '{USER_ID}', gid: '{USER_ID}', mode: 0444}}",
        "    deploy:",
        "      endpoint_mode: dnsrr",
        f"      labels: {{{LABEL_LAB}: {lab}, {LABEL_NODE}: {service}, {LABEL_KIND}: {kind}}}",
        "      restart_policy: {condition: any, delay: 1s}",
        f"      resources: {{limits: {{memory: {MEMORY}}}}}",
        *([f"      placement: {{constraints: [{json.dumps(constraint)}]}}"] if constraint else []),
    ]
