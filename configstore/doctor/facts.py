"""What was found out, as values, before anybody judges it. Times are Unix seconds, sizes bytes."""

import enum

import msgspec

from configstore.expiry import Validity
from configstore.model.lease import HeldUp
from configstore.model.path import StorePath
from configstore.model.replica import Report
from configstore.model.seal import Policy
from configstore.store.api import MemberStatus


class Failure(msgspec.Struct, frozen=True):
    """Why something could not be done, in words for an operator, and the exit code of that kind of failure."""

    reason: str
    exit_code: int = 1


class Refusal(enum.StrEnum):
    """Why there is no TLS connection to an endpoint that accepts connections."""

    NAME = "the certificate is for another name"
    AUTHORITY = "the certificate is signed by an authority that is not trusted here"
    EXPIRED = "the certificate has expired"
    NOT_YET = "the certificate is not valid yet"
    CLIENT = "the client certificate was refused, or is missing"
    PLAIN = "no TLS is spoken there"
    UNFIT = "the certificate is not accepted"
    FILES = "the files of cacert, cert or key are unusable"
    OTHER = "the handshake fails"


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint showed over HTTP.

    refusal: why there is no TLS, with the library's own `detail`. names: for which the certificate is, where they
    matter. certificate: from when until when it is valid. clock_ahead: by how much etcd's clock is ahead of this
    machine's. quota: as in `MemberStatus`. silent: why clock or quota could not be had.
    """

    refusal: Refusal | None = None
    detail: str = ""
    names: tuple[str, ...] = ()
    certificate: Validity | None = None
    clock_ahead: float | None = None
    quota: int | None = None
    silent: str = ""


class EndpointAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint, asked on its own: the status of its member after `latency` seconds, or why there is none."""

    url: str
    web: Web
    status: MemberStatus | Failure
    latency: float = 0.0


class Access(enum.Enum):
    """What etcd says of access control. OPEN: no user is set and none was asked for, whatever the reason."""

    ON = enum.auto()
    OFF = enum.auto()
    OPEN = enum.auto()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of trying each right on a key of the doctor's own: allowed, refused, or not tried at all.

    took: seconds for a write through the cluster. left: whether the key had to be left to its lease's end.
    """

    allowed: tuple[str, ...] = ()
    refused: dict[str, Failure] = {}
    untried: tuple[str, ...] = ()
    took: float = 0.0
    left: bool = False


class Lack(msgspec.Struct, frozen=True):
    """A right that a mapping needs and that was refused: of which mapping ("": of all), what, and what for."""

    mapping: str
    what: str
    why: str


class ServiceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of trying the rights that a service needs, by one who has not those of a person.

    how: the options that tell its mappings. mappings: their names. beyond: what it may do and must not.
    """

    service: str
    how: str
    mappings: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()
    beyond: tuple[str, ...] = ()


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What lies below the root key: the names of subtrees, how many records, and the paths of unreadable ones.

    live: how many replicas mirror something. unwell: those that are not ready, as `mapping: replica@host: state`.
    held_up: leases that are held for longer than is usual. unopened: how many records are sealed with which key
    that the keyring does not have; without a keyring, with which key at all. reports: of live replicas.
    """

    subtrees: tuple[str, ...] = ()
    count: int = 0
    unreadable: tuple[str, ...] = ()
    live: int = 0
    unwell: tuple[str, ...] = ()
    held_up: tuple[HeldUp, ...] = ()
    unopened: dict[str, int] = {}
    reports: tuple[Report, ...] = ()


class Sealing(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping of a sidecar, and what it does about sealing. fits: the keyring has a key of its subtree."""

    name: str
    store: StorePath
    policy: Policy
    fits: bool = True


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """The keyring that is set. failure: why it cannot be used. mode: of its file. keys: their ids.

    mappings: those of the sidecar whose settings were named.
    """

    path: str
    failure: str = ""
    mode: int = 0
    master: bool = False
    keys: tuple[str, ...] = ()
    mappings: tuple[Sealing, ...] = ()


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Free bytes and inodes of a file system, without root's reserve, and all it has; 0 inodes: it counts none."""

    free: int
    size: int
    free_inodes: int = 0
    inodes: int = 0


class Inotify(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's limits for each user: instances, and watches in all of them."""

    instances: int
    watches: int


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """A local directory that is to be mirrored, as the user who runs this sees it.

    sticky: only the owner of a file, or of the directory, may replace it; `exempt` are these and CAP_FOWNER.
    leases: whether the kernel tells who is writing to the files there: root needs CAP_LEASE for other users' ones.
    room: what is free there. folders: how many there are, each of which needs a watch. watched: why none could be
    had in a trial, "" where it could.
    """

    path: str
    failure: str = ""
    writable: bool = True
    sticky: bool = False
    exempt: bool = False
    leases: bool = True
    room: Room | None = None
    folders: int = 0
    watched: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found out. What was not asked, since nobody would have answered, is None.

    now: this machine's clock. client_validity: of the configured one.
    compacted: the oldest revision that is still there; 0 when etcd was never compacted.
    state: the directory in which a sidecar here remembers what it agreed on; None where there is none.
    part: the rights by mapping, where mappings are known and etcd does not take us for a person.
    keyring: None where none is set.
    cut_off: the call of the store as a whole that nobody answered; the later ones were not made.
    """

    now: float
    root: str
    endpoints: tuple[EndpointAnswer, ...]
    user: str | None = None
    client_certificate: bool = False
    client_validity: Validity | None = None
    access: Access | Failure | None = None
    trial: Trial | None = None
    part: ServiceTrial | Failure | None = None
    compacted: int | Failure | None = None
    records: Records | Failure | None = None
    cut_off: Failure | None = None
    directories: tuple[Directory, ...] = ()
    state: Directory | None = None
    inotify: Inotify | None = None
    keyring: Ring | None = None

    @property
    def statuses(self) -> tuple[MemberStatus, ...]:
        """The statuses of the endpoints that answered."""
        return tuple(each.status for each in self.endpoints if isinstance(each.status, MemberStatus))
