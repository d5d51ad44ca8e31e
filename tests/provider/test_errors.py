"""Errors: numbers, POSIX counterparts, classes, pickling."""

import errno
import pickle

import pytest

from provider.errors import WsaErrno, WsaError


@pytest.mark.parametrize(
    ("number", "caught"),
    [
        (WsaErrno.WSAECONNRESET, ConnectionResetError),
        (WsaErrno.WSAECONNABORTED, ConnectionAbortedError),
        (WsaErrno.WSAECONNREFUSED, ConnectionRefusedError),
        (WsaErrno.WSAEWOULDBLOCK, BlockingIOError),
        (WsaErrno.WSAETIMEDOUT, TimeoutError),
        (WsaErrno.WSAESHUTDOWN, BrokenPipeError),
        (WsaErrno.WSAEACCES, PermissionError),
        (WsaErrno.WSAEINTR, InterruptedError),
        (WsaErrno.WSAEINVAL, OSError),
    ],
)
def test_an_error_is_caught_as_the_standard_class(number, caught):
    with pytest.raises(caught) as caught_error:
        raise WsaError(number, "why")
    assert caught_error.value.winerror == number
    assert str(caught_error.value) == f"{number.name} ({int(number)}): why"


def test_every_number_has_an_error_with_both_numbers_that_pickles():
    for number in WsaErrno:
        error = WsaError(number)
        assert isinstance(error.errno, int)
        assert error.winerror == number
        copy = pickle.loads(pickle.dumps(WsaError(number, "text")))
        assert (type(copy), copy.winerror, copy.errno, str(copy)) == (
            type(error),
            error.winerror,
            error.errno,
            f"{number.name} ({int(number)}): text",
        )


def test_numbers_are_winerror_h():
    assert (WsaErrno.WSAECONNRESET, WsaErrno.WSA_IO_PENDING, WsaErrno.WSA_QOS_RESERVED_PETYPE) == (10054, 997, 11031)
    assert WsaErrno.WSAEREMOTE == 10071
    assert WsaErrno.WSA_IPSEC_NAME_POLICY_ERROR == 11033
    assert len(WsaErrno) == 97


def test_posix_numbers():
    assert WsaError(WsaErrno.WSAENOTCONN).errno == errno.ENOTCONN
    assert WsaError(WsaErrno.WSAENOBUFS).errno == errno.ENOBUFS
    assert WsaError(WsaErrno.WSA_QOS_SENDERS).errno == errno.EIO


def test_a_connect_under_way_has_its_own_posix_number():
    error = pickle.loads(pickle.dumps(WsaError(WsaErrno.WSAEWOULDBLOCK, "wait", in_progress=True)))
    assert isinstance(error, BlockingIOError)
    assert (error.winerror, error.errno) == (10035, errno.EINPROGRESS)
