"""Our codecs against our scapy layers: the same bytes, field by field, in both directions."""

import warnings

import pytest

from fabric.wire import cm, sdp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.config import conf

    from fabric.wire import scapy_layers as layers

HELLO = sdp.encode_hello(
    sdp.Hello(17, 4096, 40_000, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), sdp.Extension(3, 4, 5))
)
REQUIRED = {
    "local_comm_id": 7,
    "service_id": cm.sdp_service_id(80),
    "local_ca_guid": 0x0200000A00000001,
    "local_qpn": 0xABCDE,
    "starting_psn": 0x123456,
    "path_mtu": 5,
}
REPLY = {"local_qpn": 0x77, "starting_psn": 0x99, "local_ca_guid": 0x88}
IDS = {"local_comm_id": 0x11223344, "remote_comm_id": 0x55667788}


@pytest.mark.parametrize(
    ("message", "layer", "fields"),
    [
        (
            cm.ConnectRequest(
                transaction_id=9,
                **REQUIRED,
                retry_count=6,
                rnr_retry=7,
                max_cm_retries=15,
                remote_cm_response_timeout=20,
                local_cm_response_timeout=21,
                private_data=HELLO,
            ),
            layers.CMReq,
            {
                "local_comm_id": 7,
                "service_id": 0x10050,
                "local_qpn": 0xABCDE,
                "starting_psn": 0x123456,
                "path_mtu": 5,
                "retry_count": 6,
                "rnr_retry": 7,
                "max_cm_retries": 15,
                "remote_cm_timeout": 20,
                "local_cm_timeout": 21,
                "pkey": 0xFFFF,
            },
        ),
        (
            cm.MessageReceiptAck(transaction_id=9, message_mraed=1, service_timeout=19, **IDS),
            layers.CMMra,
            {"message_mraed": 1, "service_timeout": 19, **IDS},
        ),
        (
            cm.ConnectReject(transaction_id=9, message_rejected=0, reason=28, additional_info=b"why", **IDS),
            layers.CMRej,
            {"reason": 28, "info_length": 3, "info": b"why".ljust(72, b"\0"), **IDS},
        ),
        (cm.ReadyToUse(transaction_id=9, **IDS), layers.CMRtu, IDS),
        (cm.DisconnectRequest(transaction_id=9, remote_qpn=0x123, **IDS), layers.CMDreq, {"remote_qpn": 0x123, **IDS}),
        (cm.DisconnectReply(transaction_id=9, **IDS), layers.CMDrep, IDS),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_cm_messages(message, layer, fields):
    data = cm.encode_mad(message)
    packet = layers.MAD(data)
    assert packet.transaction_id == 9
    found = packet[layer]
    assert {name: getattr(found, name) for name in fields} == fields
    assert bytes(packet) == data


def test_a_hello_in_a_request():
    request = layers.MAD(cm.encode_mad(cm.ConnectRequest(transaction_id=1, **REQUIRED, private_data=HELLO)))
    assert (request[layers.SDP].bufs, request[layers.SDP].len) == (17, 92)
    hello = request[layers.SDPHello]
    assert (hello.port, hello.receive_size, hello.source[-4:]) == (40_000, 4096, bytes([10, 0, 0, 1]))


def test_a_hello_ack_is_cut_off_from_its_padding():
    ack = sdp.encode_hello_ack(sdp.HelloAck(5, 2048, None))
    reply = layers.MAD(cm.encode_mad(cm.ConnectReply(transaction_id=1, private_data=ack, **REPLY, **IDS)))
    assert reply[layers.SDPHelloAck].receive_size == 2048
    assert bytes(reply[conf.padding_layer]) == bytes(196 - len(ack))


@pytest.mark.parametrize(
    ("mid", "body", "layer", "fields"),
    [
        (
            sdp.Mid.SUSPEND,
            sdp.encode_suspend(sdp.Suspend(0, 4, 900)),
            layers.SDPSuspComm,
            {"epoch": 4, "deadline_ms": 900},
        ),
        (
            sdp.Mid.SUSPEND,
            sdp.encode_suspend(sdp.Suspend(0x10050)),
            layers.SDPSuspComm,
            {"service_id": 0x10050, "epoch": None},
        ),
        (
            sdp.Mid.RESUME,
            sdp.encode_resume(sdp.Resume(1, 2, 3)),
            layers.SDPResume,
            {"epoch": 1, "last_sent": 2, "last_received": 3},
        ),
        (sdp.Mid.DATA, b"hello", conf.raw_layer, {"load": b"hello"}),
    ],
)
def test_sdp_messages(mid, body, layer, fields):
    data = sdp.encode_message(mid, bufs=3, mseq=4, mseqack=5, body=body)
    packet = layers.SDP(data + b"\0\0")
    assert (packet.mid, packet.bufs, packet.mseq, packet.mseqack) == (int(mid), 3, 4, 5)
    assert {name: getattr(packet[layer], name) for name in fields} == fields
    assert bytes(packet) == data + b"\0\0"


def test_a_message_built_with_scapy_has_the_right_length_and_our_codec_reads_it():
    data = bytes(layers.SDP(mid=int(sdp.Mid.DATA), bufs=1, mseq=2, mseqack=3) / b"abc")
    assert sdp.decode_message(data) == (sdp.Bsdh(0xFF, 0, 1, 19, 2, 3), b"abc")


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n", bytes(16)])
def test_other_payloads_stay_raw(data):
    assert layers.SDP(data).__class__ is conf.raw_layer or not data
