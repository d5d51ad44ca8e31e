"""Keys: made, kept to their owner, read back; the allow-list knows keys and nothing else."""

import pytest
import zmq

from fabric.errors import UsageError
from fabric.live.curve import ZAP_ADDRESS, AllowList, Credentials, KeyPair, new_keys, read_secret, write_secret


def test_a_secret_is_written_for_its_owner_only_and_reads_back(tmp_path):
    keys, path = new_keys(), tmp_path / "node.key"
    write_secret(keys, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secret(path) == keys
    assert keys.secret not in repr(keys)
    with pytest.raises(FileExistsError):
        write_secret(keys, path)


def test_a_secret_that_others_can_read_or_that_is_none_is_refused(tmp_path):
    path = tmp_path / "node.key"
    with pytest.raises(UsageError, match="cannot be read"):
        read_secret(path)
    write_secret(new_keys(), path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others can read"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("hello")
    with pytest.raises(UsageError, match="not a CURVE key"):
        read_secret(path)


def test_public_keys_are_checked():
    with pytest.raises(UsageError, match="public key of s1"):
        Credentials(new_keys(), {"s1": "x" * 39})


@pytest.fixture
def ask():
    known = new_keys()
    context = zmq.Context()
    allow_list = AllowList(context, {"s1": known.public})
    client = context.socket(zmq.REQ)
    client.connect(ZAP_ADDRESS)

    def ask(parts):
        client.send_multipart(parts)
        assert allow_list.socket.poll(5000)
        allow_list.serve()
        return client.recv_multipart()

    yield ask, known, allow_list
    client.close(0)
    allow_list.close()
    context.term()


def request(keys: KeyPair, **changes: bytes) -> list[bytes]:
    parts = {
        "version": b"1.0",
        "number": b"7",
        "domain": b"sanloom",
        "address": b"127.0.0.1",
        "identity": b"",
        "mechanism": b"CURVE",
        "key": zmq.utils.z85.decode(keys.public),
    }
    return list((parts | changes).values())


def test_a_known_key_is_a_name(ask):
    say, known, allow_list = ask
    assert say(request(known)) == [b"1.0", b"7", b"200", b"OK", b"s1", b""]
    assert allow_list.refused == 0


@pytest.mark.parametrize(
    "changes",
    [{"version": b"2.0"}, {"domain": b"other"}, {"mechanism": b"NULL"}, {"mechanism": b"PLAIN"}, {"key": bytes(32)}],
)
def test_everything_else_is_refused(ask, changes):
    say, known, allow_list = ask
    assert say(request(known, **changes))[:3] == [b"1.0", b"7", b"400"]
    assert allow_list.refused == 1


def test_requests_of_a_wrong_shape_are_refused(ask):
    say, known, _ = ask
    for parts in ([b""], [b"1.0"], request(known)[:-1], [*request(known), b"more"]):
        assert say(parts)[2] == b"400"
