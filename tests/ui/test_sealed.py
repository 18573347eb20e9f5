"""The page on a store that is sealed: without a keyring nothing of a file shows, and nothing fails."""

import pytest

from configstore.model.record import sha256
from configstore.model.seal import Master, Policy, Secret, dump
from configstore.store.envelope import Envelopes
from tests.harness.named import a_file, a_link, put
from tests.harness.servers import connect
from tests.ui.client import Client
from tests.ui.cluster import Cluster, Ui, tree_of

pytestmark = pytest.mark.xdist_group("ui")

SECRET = b"words that only a keyring opens"
MASTER = Master(secrets=(Secret(secret=b"u" * 32),))
PATH = "overrides/a.conf"
PAGES = [
    "/",
    "/tree/",
    "/tree/overrides",
    "/conflicts",
    "/leases",
    "/store",
    f"/path/{PATH}",
    "/path/overrides/link",
]


@pytest.fixture(scope="module")
def sealed(etcd):
    """Return a root with a sealed public file, its history, a link and a conflict."""
    root = "/ui-sealed"
    with connect(etcd.endpoint) as kv:
        envelopes = Envelopes(root, keyring=MASTER.keyring(), policy=lambda _: Policy.REQUIRED)
        tree = tree_of(kv, root, envelopes=envelopes)
        for version in (b"one", b"two"):
            content = SECRET + version + b"\n"
            put(tree, {PATH: (a_file(content, 0o644), content)})
        put(tree, {"overrides/link": a_link("secret-target")})
        lost = SECRET + b"lost\n"
        entry = a_file(lost, 0o644)
        tree.keep_conflict(PATH, entry, lost, retention=600)
        yield Cluster(etcd.endpoint, root, tree)


def test_without_a_keyring_every_page_answers_and_shows_nothing_of_a_file(sealed):
    ui = Ui(sealed, "--write")
    try:
        client = Client(ui).enter()
        answers = {page: client.ask(page) for page in PAGES}
        assert {page: each.status for page, each in answers.items()} == dict.fromkeys(PAGES, 200)
        for each in answers.values():
            assert SECRET.decode() not in each.text
            assert "secret-target" not in each.text
            assert sha256(SECRET + b"two\n")[:16] not in each.text
        assert "which no keyring here has" in answers[f"/path/{PATH}"].text
        for action, fields in client.ask(f"/path/{PATH}").forms().items():
            assert client.ask(action, fields).status < 600
            assert SECRET.decode() not in client.ask(action, fields).text
    finally:
        assert ui.end() == 0


def test_with_the_keyring_the_page_shows_what_it_shows_of_a_plain_store(sealed, tmp_path):
    (tmp_path / "master").write_bytes(dump(MASTER))
    ui = Ui(sealed, CONFIGSTORE_SEAL_KEYRING=str(tmp_path / "master"))
    try:
        client = Client(ui).enter()
        assert f"{SECRET.decode()}two" in client.ask(f"/path/{PATH}").text
        assert f"{SECRET.decode()}lost" in client.ask("/conflicts").text
    finally:
        assert ui.end() == 0
