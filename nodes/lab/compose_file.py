"""A topology -> a compose file that plain ``docker compose up`` runs, without Sanloom on the machine.

One service per node, and ``keys``, which runs first and once: it makes the CURVE keys, into one volume per node. All
nodes are on one internal network; nothing is published. What is secret is in the volumes only. A host's runtime
directory is a volume too, so that an application in a container of its own can use the host's agent: it mounts that
volume and shares the host's pid namespace (by which the agent knows who asks).
"""

import json

from fabric.topology.spec import Topology
from nodes.container import USER_ID

DEFAULT_IMAGE = "sanloom:0.1.0"
MEMORY, PIDS = "512M", 512
WORKLOAD_SIZE = 8 << 20
_SENDER = "python -P -m nodes.apps.file_sender /tmp/file"
_RECEIVER = "exec python -P -m nodes.apps.handoff_source {first}:7000 --out /tmp/received --patience 30"
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
    host_role: str = "host",
    workload: bool = False,
) -> str:
    """The text of the file.

    ``build_context`` is the path to Sanloom's sources, relative to the file. ``workload`` adds two applications under
    the profile ``workload``: the first host sends a file to the last, where the connection is handed over and back.
    """
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
        f"  SANLOOM_TOPOLOGY: {topology_variable(topology)}",
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
        "    attach: false  # its end is not the end of `up --exit-code-from ...`",
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
            f"    command: [{host_role if kind == 'host' else kind}]",
            f"    hostname: {node}",
            f"    labels: {{{LABEL_LAB}: {name}, {LABEL_NODE}: {node}, {LABEL_KIND}: {kind}}}",
            "    environment:",
            "      <<: *environment",
            f"      SANLOOM_NODE: {node}",
            *([f"      SANLOOM_AGENT: /run/sanloom/{node}.agent"] if kind == "host" else []),
            "    volumes:",
            f"      - keys-{node}:/var/lib/sanloom/keys:ro",
            *([f"      - run-{node}:/run/sanloom"] if kind == "host" else []),
        ]
    for host, application in topology.applications():
        lines += _application(
            f"{host}-{application.name}",
            host,
            list(application.command),
            [other.replace(".", "-") for other in application.after],
            environment=application.environment,
            restart='"no"' if application.restart == "never" else application.restart,
            labels=f"{{{LABEL_LAB}: {name}, {LABEL_NODE}: {host}, {LABEL_KIND}: application}}",
        )
    if workload:
        first, *_, last = topology.hosts
        lines += _application(
            "sender", first, ["sh", "-c", f"head -c {WORKLOAD_SIZE} /dev/urandom > /tmp/file && exec {_SENDER}"], []
        )
        lines += _application("receiver", last, ["sh", "-c", _RECEIVER.format(first=first)], ["sender"])
    lines += ["", "networks:", "  fabric: {internal: true}", "", "volumes:"]
    lines += [f"  keys-{node}: {{}}" for node in nodes]
    lines += [f"  run-{host}: {{}}" for host in topology.hosts]
    return "\n".join(lines) + "\n"


def _application(
    name: str,
    host: str,
    command: list[str],
    after: list[str],
    *,
    environment: dict[str, str] | None = None,
    restart: str | None = None,
    labels: str | None = None,
) -> list[str]:
    """A service that runs ``command`` on a host, in a container of its own; without ``labels`` it is the workload's."""
    return [
        f"  {name}:",
        "    <<: *image",
        *(["    profiles: [workload]"] if labels is None else [f"    labels: {labels}", f"    restart: {restart}"]),
        "    init: true",
        f"    pid: service:{host}",
        "    network_mode: none  # it speaks to the agent only",
        f"    attach: {'true' if after or labels else 'false'}",
        "    cap_drop: [ALL]",
        '    security_opt: ["no-new-privileges:true"]',
        "    healthcheck: {disable: true}",
        "    environment:",
        f"      SANLOOM_AGENT: /run/sanloom/{host}.agent",
        *[f"      {key}: {_quoted(value)}" for key, value in (environment or {}).items()],
        f"    volumes: [run-{host}:/run/sanloom]",
        "    depends_on:",
        f"      {host}: {{condition: service_healthy}}",
        *[f"      {other}: {{condition: service_started}}" for other in after],
        f"    entrypoint: [{', '.join(_quoted(part) if labels else _plain(part) for part in command)}]",
    ]


def topology_variable(topology: Topology) -> str:
    """The topology as the value of a variable: YAML in single quotes, dollar signs as ``_quoted`` has them."""
    text = json.dumps(topology.to_json(), separators=(",", ":"))
    return "'" + text.replace("'", "''").replace("$", "$$") + "'"


def _quoted(text: str) -> str:
    """As YAML, for Compose, which takes a dollar sign for a variable of its own."""
    return json.dumps(text).replace("$", "$$")


def _plain(text: str) -> str:
    return text if text.isalnum() or text == "-c" else json.dumps(text)
