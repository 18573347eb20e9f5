"""What a contender for a lease says of itself, and what its holder is doing: pure values.

A claim lies under `{root}/leases/<name>/<etcd lease id>` and ends with that etcd lease. An intent lies under
`{root}/intents/<name>` and stays, so that a successor and a person see what was under way when a holder died.
"""

import msgspec


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants, or holds, a lease. `command`: its program's name; arguments may hold secrets. time: RFC 3339."""

    replica: str
    host: str
    command: str = ""
    time: str = ""
    v: int = 1


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder began under a lease, and how it ended.

    token: the holder's fencing token. ended: when, "" while it runs or when nobody knows. exit: its exit code.
    """

    token: int
    claim: Claim
    begun: str
    ended: str = ""
    exit: int | None = None
    v: int = 1

    @property
    def words(self) -> str:
        """What was begun, by whom and when."""
        what = self.claim.command or "something"
        return f"{what}, begun {self.begun} by {self.claim.replica} on {self.claim.host}"


_encoder = msgspec.json.Encoder()
_claim_decoder = msgspec.json.Decoder(Claim)
_intent_decoder = msgspec.json.Decoder(Intent)


def encode(value: Claim | Intent) -> bytes:
    """Return a value as a line of JSON."""
    return _encoder.encode(value)


def decode_claim(text: bytes) -> Claim | None:
    """Return a claim; None when it is none of ours, as with `etcdctl lock`."""
    try:
        return _claim_decoder.decode(text)
    except (msgspec.DecodeError, ValueError):
        return None


def decode_intent(text: bytes) -> Intent | None:
    """Return an intent; None when it cannot be read."""
    try:
        return _intent_decoder.decode(text)
    except (msgspec.DecodeError, ValueError):
        return None
