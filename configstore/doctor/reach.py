"""Judges the way to etcd: endpoints, TLS, credentials, clocks. Pure; for `judge` and `overview.judge`."""

import datetime as dt
from collections.abc import Iterator

from configstore.doctor.facts import AccessControl, EndpointAnswer, Facts, Failure, Refusal
from configstore.doctor.finding import Finding, fail, ok, warn
from configstore.expiry import Validity
from configstore.model.endpoint import parse_endpoint
from configstore.model.path import printable
from configstore.store.api import MemberStatus

SEE_TLS = "see tls below"

SLOW = 0.5
"""Seconds of an answer or a write above which the store is called slow."""

RENEW = "renew it, by `configstore access apply` or where it came from; its files are read anew"

APART = 5.0
"""Seconds by which clocks may differ before times in a history mislead people."""


def endpoints(facts: Facts) -> Iterator[Finding]:
    """Judge whether each endpoint answers."""
    others = bool(facts.statuses)
    for each in facts.endpoints:
        if isinstance(each.status, MemberStatus):
            found = f"{each.url} answers in {each.latency * 1000:.0f} ms"
            if each.latency > SLOW:
                yield warn("endpoint", found, "look at that member's load and at the network between")
            else:
                yield ok("endpoint", found)
        elif each.http.refusal:
            found, mend = f"{each.url} is there, but without TLS as configured", SEE_TLS
            yield warn("endpoint", found, mend) if others else fail("endpoint", found, mend, 2)
        else:
            found = each.status.reason
            mend = "is etcd running there? look at the URL, the network and the firewall"
            if others:
                yield warn("endpoint", found, f"{mend}; the other endpoints are used meanwhile")
            else:
                yield fail("endpoint", found, mend, each.status.exit_code)


_TLS_MENDS = {
    Refusal.NAME: "use one of its names in the endpoint, or set server_name to it",
    Refusal.AUTHORITY: "set cacert to the certificates of the authority that signed it",
    Refusal.EXPIRED: "renew etcd's certificate, by `configstore access apply` or where it came from",
    Refusal.NOT_YET: "compare the clocks here and where it was made",
    Refusal.CLIENT: "set cert and key to a certificate that etcd's --trusted-ca-file signed",
    Refusal.PLAIN: "http:// in the endpoint, or better: give etcd --cert-file and --key-file",
    Refusal.UNFIT: "make one that `openssl verify` accepts, with the names of the endpoint",
    Refusal.FILES: "look at the files of cacert, cert and key: PEM, readable, key without a passphrase",
    Refusal.OTHER: "does the endpoint's URL say what the server speaks, https or http?",
}


def tls(facts: Facts) -> Iterator[Finding]:
    """Judge certificates, and connections without TLS."""
    for each in facts.endpoints:
        if each.url.startswith("https://"):
            yield from _certificate(each, facts)
        elif not parse_endpoint(each.url).is_loopback:
            mend = "give etcd --cert-file and --key-file, and use https:// and cacert"
            yield warn("tls", f"{each.url} is plain http: keys and passwords can be read on the way", mend)
    if not any(
        each.url.startswith("https://") or not parse_endpoint(each.url).is_loopback for each in facts.endpoints
    ):
        yield ok("tls", "none, on this host's loopback")
    if facts.client_certificate:
        yield _ending("client certificate", "it", facts.client_validity, facts.now)


def _certificate(each: EndpointAnswer, facts: Facts) -> Iterator[Finding]:
    refusal = each.http.refusal
    if refusal is None:
        yield _ending("tls", f"the certificate of {each.url}", each.http.certificate, facts.now)
        return
    found = f"{each.url}: {refusal} ({each.http.detail})"
    if each.http.names:
        found += f"; it is for {', '.join(map(printable, each.http.names))}"
    works = bool(facts.statuses)
    yield warn("tls", found, _TLS_MENDS[refusal]) if works else fail("tls", found, _TLS_MENDS[refusal], 2)


def _ending(check: str, what: str, validity: Validity | None, now: float) -> Finding:
    if validity is None:
        return warn(check, f"when {what} expires could not be seen")
    day = f"{dt.datetime.fromtimestamp(validity.end, dt.UTC):%Y-%m-%d}"
    if validity.end <= now:
        return fail(check, f"{what} expired on {day}", RENEW, 2)
    if validity.ends_soon(now):
        days = int((validity.end - now) // 86400)
        return warn(check, f"{what} expires on {day} (days left: {days})", RENEW)
    return ok(check, f"{what} is valid until {day}")


def credentials(facts: Facts) -> Iterator[Finding]:
    """Judge as which user etcd knows this client."""
    check, access = "credentials", facts.access
    user = printable(facts.user or "")
    if access is None:
        return
    if isinstance(access, Failure):
        mend = "look at user and password_file, and at `etcdctl user get`; without a user: set one"
        yield fail(check, access.reason, mend, access.exit_code)
    elif access is AccessControl.ON:
        who = f"user {user} logs in" if user else "the client certificate says who we are"
        yield ok(check, f"access control is on, {who}")
    elif access is AccessControl.OFF:
        found = f"user {user} is set, but etcd's access control is off"
        yield warn(check, found, "give that user a role for the root key, then `etcdctl auth enable`")
    elif facts.client_certificate:
        yield ok(check, "no user is needed beside the client certificate")
    elif all(parse_endpoint(each.url).is_loopback for each in facts.endpoints):
        yield ok(check, "no user is needed, on this host's loopback")
    else:
        found = "no user and no client certificate is needed: whoever reaches etcd reads the private keys"
        yield warn(check, found, "etcd's --client-cert-auth, and `etcdctl auth enable`")


def clock(facts: Facts) -> Iterator[Finding]:
    """Judge etcd's clock: no decision depends on it, but people read the times."""
    if not facts.statuses:
        return
    known = [(each.http.clock_ahead, each) for each in facts.endpoints if each.http.clock_ahead is not None]
    if not known:
        why = "; ".join(dict.fromkeys(each.http.silent for each in facts.endpoints if each.http.silent))
        yield warn("clock", f"etcd's could not be seen ({why or 'no date in its answers'})")
        return
    ahead, worst = max(known, key=lambda one: abs(one[0]))
    if abs(ahead) <= APART:
        yield ok("clock", f"within {APART:g} s of etcd's")
    else:
        side = "ahead of" if ahead > 0 else "behind"
        found = f"{worst.url} is {abs(ahead):.0f} s {side} this machine: times in a history mislead"
        yield warn("clock", found, "run an NTP client on both; nothing but what people read depends on it")
