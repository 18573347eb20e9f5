"""What the doctor found out, as values, before it is judged. Times are Unix seconds, sizes bytes."""

import enum

import msgspec

from configstore.expiry import Validity
from configstore.model.lease import HeldUp
from configstore.model.path import StorePath
from configstore.model.replica import Report
from configstore.model.seal import Policy
from configstore.store.api import MemberStatus


class Failure(msgspec.Struct, frozen=True):
    """Why a call failed, as a text for the operator, and the exit code of that kind of failure."""

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


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint answered over HTTP.

    refusal: why there is no TLS connection; detail: the TLS library's own text. names: those of the certificate,
    when it is for another name. certificate: its validity. clock_ahead: how far etcd's clock is ahead of this
    machine's. quota: as in `MemberStatus`. silent: why clock or quota are unknown.
    """

    refusal: Refusal | None = None
    detail: str = ""
    names: tuple[str, ...] = ()
    certificate: Validity | None = None
    clock_ahead: float | None = None
    quota: int | None = None
    silent: str = ""


class EndpointAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint, asked on its own: its member's status, or why there is none. latency: of the status call."""

    url: str
    http: HttpAnswer
    status: MemberStatus | Failure
    latency: float = 0.0


class AccessControl(enum.Enum):
    """Whether etcd checks rights. OPEN: no user is set here, and etcd asked for none."""

    ON = enum.auto()
    OFF = enum.auto()
    OPEN = enum.auto()


class RightsTrial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of trying each right on a key that only the doctor uses: allowed, refused, or not tried.

    took: seconds of a write through the cluster. left: the key could not be deleted; its lease will end it.
    """

    allowed: tuple[str, ...] = ()
    refused: dict[str, Failure] = {}
    untried: tuple[str, ...] = ()
    took: float = 0.0
    left: bool = False


class MissingRight(msgspec.Struct, frozen=True):
    """A right that a mapping needs and etcd refused. mapping: "" for every mapping; why: what it is needed for."""

    mapping: str
    what: str
    why: str


class ServiceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of trying the rights that one service needs, with that service's own user.

    options: those of `configstore access` that name the service. mappings: their names. beyond: rights that the
    user has and a service must not have.
    """

    service: str
    options: str
    mappings: tuple[str, ...] = ()
    missing: tuple[MissingRight, ...] = ()
    beyond: tuple[str, ...] = ()


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds below the root key: subtrees, how many records, the paths of unreadable ones.

    live: how many replicas are alive. unwell: those that are not ready, as `mapping: replica@host: state`.
    held_up: leases that are held for longer than is usual. unopened: the number of sealed records by the id of
    their key, where the keyring lacks that key (without a keyring: all sealed records). reports: of live replicas.
    """

    subtrees: tuple[str, ...] = ()
    count: int = 0
    unreadable: tuple[str, ...] = ()
    live: int = 0
    unwell: tuple[str, ...] = ()
    held_up: tuple[HeldUp, ...] = ()
    unopened: dict[str, int] = {}
    reports: tuple[Report, ...] = ()


class MappingSealing(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping of a sidecar with its sealing policy. fits: the keyring has a key of its subtree."""

    name: str
    store: StorePath
    policy: Policy
    fits: bool = True


class KeyringFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The keyring that is set. failure: why it cannot be used. mode: of its file. keys: their ids.

    mappings: those of the sidecar whose settings were named.
    """

    path: str
    failure: str = ""
    mode: int = 0
    master: bool = False
    keys: tuple[str, ...] = ()
    mappings: tuple[MappingSealing, ...] = ()


class FreeSpace(msgspec.Struct, frozen=True, kw_only=True):
    """Free bytes and inodes of a file system, without root's reserve, and its totals; inodes is 0 if uncounted."""

    free: int
    size: int
    free_inodes: int = 0
    inodes: int = 0


class InotifyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's limits for each user: inotify instances, and watches in all of them."""

    instances: int
    watches: int


class DirectoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A local directory that is to be mirrored, as the user who runs the doctor sees it.

    failure: why it cannot be read. sticky: only the owner of a file, or of the directory, may replace a file in
    it; exempt: this user is the directory's owner, or has CAP_FOWNER. leases: whether file leases can show who is
    writing (root needs CAP_LEASE for other users' files). folders: how many there are; each needs a watch.
    watched: why a trial watch failed, "" when it did not.
    """

    path: str
    failure: str = ""
    writable: bool = True
    sticky: bool = False
    exempt: bool = False
    leases: bool = True
    room: FreeSpace | None = None
    folders: int = 0
    watched: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the doctor found out. None: not asked, since nothing would have answered.

    now: this machine's clock. client_validity: of the client certificate that is set.
    service: the trial of a service's rights, made when mappings are known and etcd's user may not do everything.
    compacted: the oldest revision that etcd still has; 0 when it was never compacted.
    cut_off: the call to the cluster that was not answered; the later ones were not made.
    state: the state directory of a sidecar on this host. keyring: None when none is set.
    """

    now: float
    root: str
    endpoints: tuple[EndpointAnswer, ...]
    user: str | None = None
    client_certificate: bool = False
    client_validity: Validity | None = None
    access: AccessControl | Failure | None = None
    trial: RightsTrial | None = None
    service: ServiceTrial | Failure | None = None
    compacted: int | Failure | None = None
    records: Records | Failure | None = None
    cut_off: Failure | None = None
    directories: tuple[DirectoryFacts, ...] = ()
    state: DirectoryFacts | None = None
    inotify: InotifyLimits | None = None
    keyring: KeyringFacts | None = None

    @property
    def statuses(self) -> tuple[MemberStatus, ...]:
        """The statuses of the endpoints that answered."""
        return statuses_of(self.endpoints)


def statuses_of(endpoints: tuple[EndpointAnswer, ...]) -> tuple[MemberStatus, ...]:
    """Return the statuses of the members that answered."""
    return tuple(each.status for each in endpoints if isinstance(each.status, MemberStatus))
