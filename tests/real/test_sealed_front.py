"""Mailu's front as its preset has it, everything sealed: pairs, checks, certbot's folder, a lease, conflicts."""

import signal

import pytest

from configstore.model.path import ROOT, StorePath
from configstore.model.record import Kind
from configstore.store.conflicts import losers
from tests.harness.certificates import pair
from tests.harness.keyrings import FIRST, everything, ring, save, sealed_tree
from tests.harness.named import put
from tests.harness.waiting import freeze, wait_until

SUBTREES = tuple(map(StorePath, ("certs", "certs/letsencrypt", "overrides/nginx", "acme")))
RING = ring(FIRST, subtrees=SUBTREES)

CERTBOT = """
mkdir -p "$1/archive/mailu" "$1/live/mailu"
printf %s "$2" > "$1/archive/mailu/privkey1.pem"
ln -s ../../archive/mailu/privkey1.pem "$1/live/mailu/privkey.pem"
"""


@pytest.fixture
def fronts(service, tmp_path, kv_root):
    made = []
    for name in ("one", "two"):
        front = service(name, "mailu/front,mailu/acme")
        keyring = save(tmp_path / f"{name}.keys", RING)
        front.environment = {**front.environment, "CONFIGSTORE_SEAL_KEYRING": str(keyring)}
        made.append(front.start())
    return [front.ready() for front in made]


def test_a_front_works_sealed_as_it_does_plain(fronts, kv, kv_root):
    one, two = fronts
    tree = sealed_tree(kv, kv_root, RING)
    cert, key = pair("mail.example.com")
    other, _ = pair("mail.example.com")
    put(tree, {"certs/cert.pem": cert.encode(), "certs/key.pem": key.encode()})
    wait_until(lambda: all((front.at("/certs") / "key.pem").exists() for front in fronts))
    put(tree, {"certs/cert.pem": other.encode()})  # does not fit the key: refused by the check, whole as before
    wait_until(lambda: all("refused by the check" in front.ask("/readyz")[1] for front in fronts))
    assert (one.at("/certs") / "cert.pem").read_text() == cert

    done = one.client(
        "hold", "letsencrypt", "--", "sh", "-c", CERTBOT, "-", str(one.at("/certs/letsencrypt")), key
    )
    assert done.communicate(timeout=60) == ("", "")
    assert done.returncode == 0
    live = two.at("/certs/letsencrypt") / "live/mailu/privkey.pem"
    wait_until(lambda: live.exists() and live.read_text() == key)
    assert live.is_symlink()

    (one.at("/acme") / "token").write_bytes(b"before")
    wait_until((two.at("/acme") / "token").exists)
    wait_until(two.has_agreed)
    freeze(two.process)
    (one.at("/acme") / "token").write_bytes(b"edited by one")
    (two.at("/acme") / "token").write_bytes(b"edited by two")
    wait_until(lambda: tree.content(tree.read(StorePath("acme/token"))) == b"edited by one")
    two.process.send_signal(signal.SIGCONT)
    wait_until(lambda: (two.at("/acme") / "token").read_bytes() == b"edited by one")
    (lost,) = losers(tree, ROOT)
    assert lost.record.content == b"edited by two"

    dump = everything(kv, kv_root)
    assert not [each for each in (key.encode()[40:90], b"edited by", b"../../archive") if each in dump]
    records = [each for each in tree.list(ROOT).records.values() if each.entry.kind in {Kind.FILE, Kind.SYMLINK}]
    paths = map(StorePath, ("certs/x", "certs/letsencrypt/x", "acme/x"))
    assert {each.record.seal.key for each in records} == {RING.for_writing(path).id for path in paths}
