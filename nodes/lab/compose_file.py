"""A topology -> a compose file that plain ``docker compose up`` runs, without Sanloom on the machine.

One service per node, and ``keys``, which runs first and once: it makes the CURVE keys, into one volume per node. All
nodes are on one internal network; nothing is published. What is secret is in the volumes only.
"""

import json

from fabric.topology.spec import Topology
from nodes.container import USER_ID

DEFAULT_IMAGE = "sanloom:0.1.0"
MEMORY, PIDS = "512M", 512
LABEL_LAB, LABEL_NODE, LABEL_KIND = "sanloom.lab", "sanloom.node", "sanloom.kind"


def render_compose(
    topology: Topology,
    *,
    lab: str | None = None,
    image: str = f"${{SANLOOM_IMAGE:-{DEFAULT_IMAGE}}}",
    build_context: str | None = None,
    mode: str = "suspend",
    seed: int | None = None,
    capture: bool = False,
) -> str:
    """The text of the file. ``build_context`` is the path to Sanloom's sources, relative to the file."""
    name = lab or topology.name
    nodes = [*topology.network_switches, *topology.hosts]
    lines = [
        f"# The lab {name}, rendered by `sanloom render`. Run it with: docker compose up",
        f"name: sanloom-{name}",
        "",
        "x-environment: &environment",
        f"  SANLOOM_LAB: {name}",
        f"  SANLOOM_MODE: {mode}",
        f'  SANLOOM_SEED: "{topology.seed if seed is None else seed}"',
        f'  SANLOOM_CAPTURE: "{int(capture)}"',
        f"  SANLOOM_TOPOLOGY: '{json.dumps(topology.to_json(), separators=(',', ':'))}'",
        "",
        "x-image: &image",
        f"  image: {image}",
    ]
    if build_context is not None:
        lines += ["  build:", f"    context: {build_context}", "    dockerfile: docker/Dockerfile"]
    lines += [
        "",
        "x-node: &node",
        "  <<: *image",
        "  init: true",
        "  stop_grace_period: 10s",
        "  cap_drop: [ALL]",
        '  security_opt: ["no-new-privileges:true"]',
        "  networks: [fabric]",
        "  depends_on:",
        "    keys: {condition: service_completed_successfully}",
        "  deploy:",
        f"    resources: {{limits: {{memory: {MEMORY}, pids: {PIDS}}}}}",
        "",
        "services:",
        "  keys:",
        "    <<: *image",
        "    command: [keys]",
        f'    user: "0:0"  # to give each node\'s volume to user {USER_ID}',
        "    cap_drop: [ALL]",
        "    cap_add: [CHOWN, DAC_OVERRIDE, FOWNER]",
        '    security_opt: ["no-new-privileges:true"]',
        "    network_mode: none",
        "    healthcheck: {disable: true}",
        "    environment: *environment",
        f"    labels: {{{LABEL_LAB}: {name}}}",
        "    volumes:",
        *[f"      - keys-{node}:/keys/{node}" for node in nodes],
    ]
    for node in nodes:
        kind = "host" if node in topology.hosts else "network-switch"
        lines += [
            f"  {node}:",
            "    <<: *node",
            f"    command: [{kind}]",
            f"    hostname: {node}",
            f"    labels: {{{LABEL_LAB}: {name}, {LABEL_NODE}: {node}, {LABEL_KIND}: {kind}}}",
            "    environment:",
            "      <<: *environment",
            f"      SANLOOM_NODE: {node}",
            *([f"      SANLOOM_AGENT: /run/sanloom/{node}.agent"] if kind == "host" else []),
            f"    volumes: [keys-{node}:/var/lib/sanloom/keys:ro]",
        ]
    lines += ["", "networks:", "  fabric: {internal: true}", "", "volumes:"]
    lines += [f"  keys-{node}: {{}}" for node in nodes]
    return "\n".join(lines) + "\n"
