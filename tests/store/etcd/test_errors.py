"""The error table and the descriptor trick, without a server."""

import subprocess
import sys

import grpc
import pytest

from configstore.errors import (
    AuthenticationError,
    CompactedError,
    CorruptError,
    FutureRevisionError,
    LeaseGoneError,
    NoSpaceError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
    TooLargeError,
)
from configstore.store.etcd.errors import exception_for, meaning_of
from configstore.store.etcd.messages import is_fragment, status_of, watch_create_request
from configstore.store.etcd.stubs import rpc
from configstore.store.etcd.watch import code_of_reason

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", TooLargeError),
        (
            Code.RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (2097200 vs. 2097152)",
            TooLargeError,
        ),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", NoSpaceError),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", StoreUnavailableError),
        (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", TooLargeError),
        (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", ValueError),
        (Code.INVALID_ARGUMENT, "etcdserver: key not found", ValueError),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", CompactedError),
        (
            Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision",
            FutureRevisionError,
        ),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", LeaseGoneError),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", AuthenticationError),
        (Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID", AuthenticationError),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", AuthenticationError),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", PermissionDeniedError),
        (Code.UNAVAILABLE, "etcdserver: request timed out", StoreUnavailableError),
        (Code.UNAVAILABLE, "etcdserver: no leader", StoreUnavailableError),
        (Code.UNAVAILABLE, "Unwrap failed (TSI_DATA_CORRUPTED)", AuthenticationError),
        (Code.UNKNOWN, "context deadline exceeded", StoreUnavailableError),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", StoreUnavailableError),
        (Code.CANCELLED, "", StoreUnavailableError),
        (Code.DATA_LOSS, "etcdserver: corrupt cluster", CorruptError),
        (Code.UNIMPLEMENTED, "unknown service", StoreError),
    ],
)
def test_a_failure_becomes_the_error_of_its_row(code, details, error):
    made = exception_for(meaning_of(code, details), code, details, what="range at http://h:1")
    assert type(made) is error
    assert "range at http://h:1" in str(made)
    assert details in str(made) or "DEADLINE_EXCEEDED does not answer" in str(made)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (Code.UNAVAILABLE, "Socket closed"),
        (Code.UNAVAILABLE, "recvmsg:Connection reset by peer"),
        (Code.UNAVAILABLE, "etcdserver: request timed out"),
        (Code.UNAVAILABLE, "etcdserver: leader changed"),
        (Code.UNAVAILABLE, "etcdserver: server stopped"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (Code.UNKNOWN, "context deadline exceeded"),
        (Code.CANCELLED, "Channel closed!"),
    ],
)
def test_a_failure_that_may_have_reached_the_server_is_never_called_unsent(code, details):
    meaning = meaning_of(code, details)
    assert not meaning.unsent
    assert not meaning.login


@pytest.mark.parametrize(
    "last", ["Socket closed", "Handshake read failed (recvmsg:Connection reset by peer (104))"]
)
def test_a_connection_that_ends_in_the_handshake_hints_at_the_scheme(last):
    details = f"failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:33521: {last}"
    assert "http or https" in meaning_of(Code.UNAVAILABLE, details).mend


def test_a_name_that_nobody_knows_is_not_blamed_on_a_certificate():
    details = "errors resolving etcd:2379: [field:hostname lookup error: lookup failed: Domain name not found]"
    assert "certificate" not in meaning_of(Code.UNAVAILABLE, details).mend


def test_no_answer_at_all_says_what_to_look_at():
    code, details = Code.DEADLINE_EXCEEDED, "Deadline Exceeded"
    words = str(exception_for(meaning_of(code, details), code, details, what="range at https://etcd:2379"))
    assert "does the name resolve, does etcd run there" in words


def test_a_long_reason_is_cut():
    meaning = meaning_of(Code.UNKNOWN, "")
    assert len(str(exception_for(meaning, Code.UNKNOWN, "x" * 10_000, what="txn"))) < 500


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("rpc error: code = PermissionDenied desc = etcdserver: permission denied", Code.PERMISSION_DENIED),
        ("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token", Code.UNAUTHENTICATED),
        ("rpc error: code = InvalidArgument desc = etcdserver: user name is empty", Code.INVALID_ARGUMENT),
        ("etcdserver: no leader", Code.UNKNOWN),
        ("", Code.UNKNOWN),
    ],
)
def test_the_reason_for_a_cancelled_watch_tells_its_code(reason, code):
    assert code_of_reason(reason) is code


def python(program, **environment):
    """Run a program in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_etcds_interface_is_read_without_importing_etcd3():
    assert python("import configstore.store.etcd, sys; print('etcd3' in sys.modules)").split() == ["False"]


def test_etcd3_itself_cannot_be_imported_with_todays_protobuf():
    """Without this, `stubs` need no more than import it."""
    assert (
        python("try:\n    import etcd3\nexcept TypeError as error:\n    print('Descriptors' in str(error))")
        == "True\n"
    )


def test_grpc_still_wakes_a_thread_that_waits_for_an_answer_several_times_a_second():
    """Without this, `watch` need not set how long it waits."""
    shown = python(
        "from grpc import _common\n"
        "waited = []\n"
        "_common.wait(lambda timeout: waited.append(timeout), lambda: bool(waited))\n"
        "print(waited[0] < 1)\n"
        "import configstore.store.etcd\n"
        "waited.clear()\n"
        "_common.wait(lambda timeout: waited.append(timeout), lambda: bool(waited))\n"
        "print(waited[0])\n"
    )
    assert shown.split() == ["True", "60.0"]


def test_fields_that_etcd3_does_not_know_are_sent_and_read_by_number():
    assert watch_create_request(b"a", b"b", 7).SerializeToString().endswith(b"@\x01")
    assert is_fragment(rpc.WatchResponse.FromString(b"\x38\x01"))
    assert not is_fragment(rpc.WatchResponse(created=True))
    status = status_of(rpc.StatusResponse.FromString(b"\x42\x0dalarm:NOSPACE\x48\x02\x50\x01\x60\x07"))
    assert (status.alarms, status.db_in_use, status.learner, status.quota) == (("NOSPACE",), 2, True, 7)
    assert status_of(rpc.StatusResponse()).quota is None
    assert status_of(rpc.StatusResponse.FromString(b"\x60" + b"\xff" * 9 + b"\x01")).quota == 0


def test_an_etcd3_that_was_imported_before_us_does_no_harm():
    shown = python(
        "import warnings; warnings.simplefilter('ignore')\n"
        "import etcd3\n"
        "from configstore.store.etcd.stubs import rpc\n"
        "print(rpc.RangeRequest(key=b'a').key)\n",
        PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python",
    )
    assert shown.splitlines()[-1] == "b'a'"


def test_the_default_descriptor_pool_stays_free_of_etcd():
    shown = python(
        "import configstore.store.etcd\n"
        "from google.protobuf import descriptor_pool\n"
        "try:\n"
        "    descriptor_pool.Default().FindFileByName('rpc.proto')\n"
        "except KeyError:\n"
        "    print('free')\n"
    )
    assert shown.strip() == "free"
