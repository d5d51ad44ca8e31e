"""Opening a live capture of a running lab: from a name to a readable stream of pcapng bytes.

A lab's folder holds ``lab.json`` with each node's control socket and each link direction's two ends. The node is asked
over its control socket (AF_UNIX, SOCK_SEQPACKET, one JSON object per packet) to start a tap::

    -> {"id": 1, "op": "capture", "links": ["client->s1"]}        links: null means all of this node
    <- {"id": 1, "result": {...}}      and, as SCM_RIGHTS, the read end of a pipe that carries the pcapng stream
    <- {"id": 1, "error": {"text": "..."}}                         if it will not

The tap lives until the pipe or the control connection is closed, so it cannot outlive its reader.
"""

import contextlib
import difflib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from fabric.errors import EnvironmentLacks, UsageError

LAB_DIRECTORY_VARIABLE = "SANLOOM_LAB_DIR"
ANSWER_WITHIN_SECONDS = 10.0
MAX_PACKET = 64 * 1024


@dataclass(frozen=True, slots=True)
class CapturePoint:
    """Which node to ask, and for which of its link directions (``None``: all that it sees)."""

    node: str
    control: str
    links: tuple[str, ...] | None


class LiveCapture:
    """An open live capture: a descriptor to read pcapng bytes from, and the connection that keeps the tap alive."""

    def __init__(self, descriptor: int, connection: socket.socket | None = None) -> None:
        self._descriptor = descriptor
        self._connection = connection

    def fileno(self) -> int:
        """The descriptor to wait on; -1 once closed."""
        return self._descriptor

    def read(self, size: int = MAX_PACKET) -> bytes:
        """What is there, at least one byte, waiting if there is none; ``b""`` when the node has ended the stream."""
        return os.read(self._descriptor, size) if self._descriptor >= 0 else b""

    def close(self) -> None:
        """End the tap. Closing twice is harmless."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_live_capture(where: str, lab: str | os.PathLike[str] | None = None) -> LiveCapture:
    """Start a live capture.

    ``where`` is a node (all that it sends and receives), a link direction such as ``client->s1`` (what enters it,
    including what it then loses) or one with a side, ``client->s1 exit`` (what comes out of it). ``lab`` is the lab's
    folder; see ``lab_directory``. Raises UsageError for an unknown name or a refusal, EnvironmentLacks if no lab
    answers.
    """
    directory = lab_directory(lab)
    return _open(directory, find_capture_point(where, read_lab(directory)))


def open_links(node: str, links: list[str], lab: str | os.PathLike[str] | None = None) -> LiveCapture:
    """Start a live capture of several link directions at one node; raises as ``open_live_capture``."""
    directory = lab_directory(lab)
    return _open(directory, CapturePoint(node, _control(read_lab(directory), node), tuple(links)))


def _open(directory: Path, point: CapturePoint) -> LiveCapture:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(ANSWER_WITHIN_SECONDS)
        request = {"id": 1, "op": "capture", "links": None if point.links is None else list(point.links)}
        try:
            connection.connect(str(directory / point.control))
            connection.sendall(json.dumps(request).encode())
            answer, descriptors, _, _ = socket.recv_fds(connection, MAX_PACKET, 4, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            text = f"node {point.node} of the lab in {directory} does not answer ({error}); is the lab still running?"
            raise EnvironmentLacks(text) from error
        descriptor = _descriptor_of(answer, descriptors, point)
        connection.settimeout(None)
        return LiveCapture(descriptor, connection)
    except BaseException:
        connection.close()
        raise


def lab_directory(lab: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the running lab: ``lab``, else ``$SANLOOM_LAB_DIR``. Raises EnvironmentLacks without either."""
    chosen = lab if lab is not None else os.environ.get(LAB_DIRECTORY_VARIABLE)
    if not chosen:
        text = f"which lab? Set {LAB_DIRECTORY_VARIABLE} to its folder or pass lab=; `sanloom up` starts one"
        raise EnvironmentLacks(text)
    return Path(chosen)


def read_lab(directory: Path) -> dict[str, Any]:
    """The lab's ``lab.json``. Raises EnvironmentLacks if there is none, UsageError if it makes no sense."""
    path = directory / "lab.json"
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise EnvironmentLacks(f"no running lab in {directory}: {error.strerror}; `sanloom up` starts one") from error
    try:
        lab = json.loads(text)
        nodes = {str(name): {"control": str(node["control"])} for name, node in lab["nodes"].items()}
        links = [{key: str(link[key]) for key in ("name", "source", "sink")} for link in lab["links"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a lab file: {error!r}") from error
    return {"nodes": nodes, "links": links}


def find_capture_point(where: str, lab: dict[str, Any]) -> CapturePoint:
    """Who can show ``where``; see ``open_live_capture``. UsageError names what is near or what there is."""
    nodes = lab["nodes"]
    if where in nodes:
        return CapturePoint(where, nodes[where]["control"], None)
    known = list(nodes)
    for link in lab["links"]:
        name = link["name"]
        known.append(name)
        if where in (name, f"{name} entry"):
            return CapturePoint(link["source"], _control(lab, link["source"]), (name,))
        if where == f"{name} exit":
            return CapturePoint(link["sink"], _control(lab, link["sink"]), (name,))
    near = difflib.get_close_matches(where, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"the lab has no node or link {where!r}; {hint}")


def _control(lab: dict[str, Any], node: str) -> str:
    if node not in lab["nodes"]:
        raise UsageError(f"lab.json: a link ends at {node!r}, which is not one of its nodes")
    return cast("str", lab["nodes"][node]["control"])


def _descriptor_of(answer: bytes, descriptors: list[int], point: CapturePoint) -> int:
    """The one descriptor of a good answer; all others are closed."""
    error: Exception
    try:
        reply = json.loads(answer)
        if "error" in reply:
            error = UsageError(f"node {point.node} refuses the capture: {reply['error']['text']}")
        elif reply.get("id") == 1 and "result" in reply and len(descriptors) == 1:
            return descriptors[0]
        else:
            error = EnvironmentLacks(f"node {point.node} gave no stream with its answer {answer[:200]!r}")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = f"node {point.node} gave an answer that cannot be understood: {answer[:200]!r}"
        error = EnvironmentLacks(text)
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    raise error
