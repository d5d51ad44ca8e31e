"""Which clock a process reads: one name for all processes that share a monotonic clock, another everywhere else."""

import hashlib
import os
from pathlib import Path

from fabric.live.envelope import MACHINE_SIZE

_BOOT_ID, _TIME_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/time"


def machine_id() -> bytes:
    """MACHINE_SIZE bytes: this boot of this kernel, and the time namespace, which shifts the clock.

    Random where the kernel does not say: then every process is taken for a machine of its own, and clocks are measured.
    """
    try:
        boot = _BOOT_ID.read_bytes()
    except OSError:
        return os.urandom(MACHINE_SIZE)
    try:
        namespace = os.readlink(_TIME_NAMESPACE)
    except OSError:
        namespace = ""  # a kernel without time namespaces has one clock
    return hashlib.sha256(boot + namespace.encode()).digest()[:MACHINE_SIZE]
