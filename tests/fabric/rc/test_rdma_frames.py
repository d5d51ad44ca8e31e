"""What others make of our RDMA frames: the complete codec, scapy with our layers, tshark."""

import json
import os
import shutil
import subprocess
import warnings

import pytest

from fabric.wire import decode, encode
from fabric.wire.headers import Aeth, ImmDt, Reth
from fabric.wire.pcapng import PcapngWriter
from tests.support.rc_wire import LATENCY
from tests.support.rdma_pair import RdmaPair

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.contrib.roce import AETH, BTH
    from scapy.layers.l2 import Ether

    from fabric.wire import scapy_layers as layers

TSHARK = ("tshark", "--disable-heuristic", "rpcrdma_infiniband")


@pytest.fixture(scope="module")
def talk():
    """The frames of writes and reads of several lengths, a refusal at their end, and the pair that sent them."""
    pair, frames = RdmaPair(a_psn=0xFFFFFD), []
    pair.wire.fate = lambda _, frame: (frames.append(frame), (LATENCY,))[1]
    pair.b.receive(pair.b_qpn, 0, 3)
    for size in (0, 1, 257, 1001):
        pair.write(3, 5, size)
        pair.read(7, 11, size)
    pair.write(3, 5, 6, immediate=0x01020304)
    pair.write(3, 5, 600, immediate=0xFFFFFFFF)
    pair.run()
    assert pair.all_good()
    pair.write(9000, 0, 1)
    pair.run()
    return pair, frames


def test_the_complete_codec_reads_every_frame_and_writes_the_same(talk):
    pair, frames = talk
    for frame in frames:
        assert encode(decode(frame)) == frame
    reths = [e for frame in frames for e in decode(frame).extensions if isinstance(e, Reth)]
    assert len(reths) == 11
    assert {reth.rkey for reth in reths} == {pair.remote.rkey}
    assert [reth.dma_length for reth in reths] == [0, 0, 1, 1, 257, 257, 1001, 1001, 6, 600, 1]
    assert [e.data for f in frames for e in decode(f).extensions if isinstance(e, ImmDt)] == [0x01020304, 0xFFFFFFFF]
    aeths = [e.syndrome for frame in frames for e in decode(frame).extensions if isinstance(e, Aeth)]
    assert aeths[-1] == 0x62
    assert set(aeths[:-1]) == {0x1F}


def test_scapy_names_the_headers_and_rebuilds_the_frames(talk):
    pair, frames = talk
    for frame in frames:
        packet, ours = Ether(frame), decode(frame)
        assert bytes(packet) == frame
        for extension in ours.extensions:
            if isinstance(extension, Reth):
                found = packet[layers.RETH]
                assert (found.va, found.rkey, found.dmalen) == (
                    extension.virtual_address,
                    pair.remote.rkey,
                    extension.dma_length,
                )
            elif isinstance(extension, Aeth):
                assert (packet[AETH].syndrome, packet[AETH].msn) == (extension.syndrome, extension.msn)
        del packet[BTH].icrc
        assert bytes(packet) == frame


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_what_we_meant(talk, tmp_path):
    _, frames = talk
    file = tmp_path / "rdma.pcapng"
    with file.open("wb") as stream:
        writer = PcapngWriter(stream.write)
        interface = writer.add_interface("wire")
        for number, frame in enumerate(frames):
            writer.write_packet(interface, number, frame)
    names = [
        "infiniband.bth.opcode",
        "infiniband.bth.psn",
        "infiniband.reth.va",
        "infiniband.reth.r_key",
        "infiniband.reth.dmalen",
        "infiniband.aeth.syndrome",
        "infiniband.immdt",
        "_ws.malformed",
    ]
    done = subprocess.run(
        [*TSHARK, "-r", str(file), "-T", "json", *(word for name in names for word in ("-e", name))],
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    found = [entry["_source"]["layers"] for entry in json.loads(done.stdout)]
    assert len(found) == len(frames)
    for frame, theirs in zip(frames, found, strict=True):
        ours = decode(frame)
        values = {name: int(value[0], 16 if name == "infiniband.immdt" else 0) for name, value in theirs.items()}
        expected = {"infiniband.bth.opcode": ours.bth.opcode, "infiniband.bth.psn": ours.bth.psn}
        for extension in ours.extensions:
            if isinstance(extension, Reth):
                expected |= {
                    "infiniband.reth.va": extension.virtual_address,
                    "infiniband.reth.r_key": extension.rkey,
                    "infiniband.reth.dmalen": extension.dma_length,
                }
            elif isinstance(extension, Aeth):
                expected["infiniband.aeth.syndrome"] = extension.syndrome
            elif isinstance(extension, ImmDt):
                expected["infiniband.immdt"] = extension.data
        assert values == expected
