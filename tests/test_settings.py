"""How settings are merged and refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configstore import client
from configstore.errors import UsageError
from configstore.parsing import parse_duration
from configstore.settings import StoreSettings, check_variables, load_store, read_toml
from configstore.store import leases
from configstore.store.etcd.connection import parse_endpoint

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("2s", 2), ("5m", 300), ("1h", 3600), ("30d", 2_592_000), ("1.5s", 1.5), ("10", 10), (3, 3)],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "s", "-1s", "1w", "1 2", "٣s", "1e9d", "inf", "nan", True, None, -1, [], 10**400]
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_any_value_is_a_sane_duration_or_refused(value):
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 0 <= seconds <= 36500 * 86400


@given(st.floats(min_value=0, max_value=10_000).map(lambda number: round(number, 3)))
def test_the_units_agree(number):
    assert parse_duration(f"{number}s") == pytest.approx(parse_duration(number))
    assert parse_duration(f"{number}m") == pytest.approx(60 * parse_duration(f"{number}s"))


def test_without_anything_the_defaults_hold():
    assert load_store(environ={}) == StoreSettings()


def test_a_table_yields_to_the_environment_and_that_to_options():
    table = {"endpoints": ["http://a:1"], "root": "/a", "timeout": "1s"}
    environ = {"CONFIGSTORE_ROOT": "/b", "CONFIGSTORE_TIMEOUT": "2s", "CONFIGSTORE_CACERT": ""}
    settings = load_store(table=table, source="f", environ=environ, options={"timeout": "3s", "root": None})
    assert settings == StoreSettings(endpoints=("http://a:1",), root="/b", timeout=3.0)


def test_several_endpoints_come_with_commas_between():
    settings = load_store(environ={"CONFIGSTORE_ENDPOINTS": "https://a:2379, https://b:2379/ ,https://a:2379"})
    assert settings.endpoints == ("https://a:2379", "https://b:2379")


@pytest.mark.parametrize("url", ["HTTP://a:2379", " Https://a:2379/ ", "hTTpS://[::1]:2379"])
def test_a_scheme_may_be_written_in_any_case(url):
    expected = url.strip().rstrip("/").replace("HTTP", "http").replace("Https", "https").replace("hTTpS", "https")
    for settings in (
        load_store(environ={"CONFIGSTORE_ENDPOINTS": url}),
        load_store(environ={}, table={"endpoints": [url]}, source="f"),
        load_store(environ={"ETCDCTL_ENDPOINTS": url}),
    ):
        assert settings.endpoints == (expected,)
        assert settings.tls == expected.startswith("https")
    assert str(parse_endpoint(url)) == expected


@pytest.mark.parametrize(
    ("url", "hostname"),
    [("https://Etcd.Example:1", "etcd.example"), ("http://[::1]:2", "::1"), ("http://a:1", "a")],
)
def test_a_host_is_written_into_certificates_in_small_letters(url, hostname):
    assert parse_endpoint(url).hostname == hostname


def test_an_empty_variable_is_an_unset_one():
    ours = {
        f"CONFIGSTORE_{name}": "" for name in ("ENDPOINTS", "ROOT", "CACERT", "USER", "PASSWORD", "PASSWORD_FILE")
    }
    etcdctls = {
        f"ETCDCTL_{name}": "" for name in ("ENDPOINTS", "CACERT", "CERT", "KEY", "USER", "USER_FILE", "PASSWORD")
    }
    assert load_store(environ=ours | etcdctls) == StoreSettings()


def test_etcdctls_variables_are_honoured_where_ours_are_not_set():
    environ = {"ETCDCTL_ENDPOINTS": "a:1,b:2", "ETCDCTL_USER": f"joe:{SECRET}", "ETCDCTL_CACERT": "/ca"}
    settings = load_store(environ=environ)
    assert settings.endpoints == ("https://a:1", "https://b:2")
    assert (settings.user, settings.password, settings.cacert) == ("joe", SECRET, "/ca")
    ours = load_store(environ=environ, table={"endpoints": ["http://127.0.0.1:3"]}, source="f")
    assert (ours.endpoints, ours.cacert) == (("http://127.0.0.1:3",), None)


def test_a_password_of_etcdctls_user_is_not_sent_for_ours():
    with pytest.raises(UsageError, match="user is set without password"):
        load_store(environ={"ETCDCTL_USER": f"joe:{SECRET}", "CONFIGSTORE_USER": "ann"})


def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "pair").write_text(f"joe:{SECRET}\n")
    file = str(tmp_path / "secret")
    ours = load_store(environ={"CONFIGSTORE_USER": "joe", "CONFIGSTORE_PASSWORD_FILE": file})
    assert (ours.password, ours.password_file) == (SECRET, file)
    theirs = load_store(environ={"ETCDCTL_USER": "joe", "ETCDCTL_PASSWORD_FILE": file})
    assert theirs.password == SECRET
    pair = load_store(environ={"ETCDCTL_USER_FILE": str(tmp_path / "pair")})
    assert (pair.user, pair.password) == ("joe", SECRET)


def test_a_later_layers_password_replaces_an_earlier_ones_file(tmp_path):
    (tmp_path / "secret").write_text("old")
    table = {"user": "joe", "password_file": str(tmp_path / "secret")}
    settings = load_store(table=table, source="f", environ={"CONFIGSTORE_PASSWORD": SECRET})
    assert (settings.password, settings.password_file) == (SECRET, None)


def test_a_password_is_never_shown():
    settings = StoreSettings(user="joe", password=SECRET)
    assert SECRET not in f"{settings} {settings!r} {[settings]} {(settings,)!s}"
    assert "joe" in repr(settings)


@pytest.mark.parametrize(
    "endpoints",
    [
        "http://192.0.2.1:2379",
        "http://etcd:2379",
        "http://localhost.example.org:2379",
        "http://[fd00::1]:2379",
        "http://127.0.0.1:2379,http://etcd:2379",
        "https://etcd:2379,http://192.0.2.1:2379",
        "http://192.0.2.1:2379,https://etcd:2379",
        "https://etcd:2379,http://127.0.0.1:2379",
    ],
)
@pytest.mark.parametrize("where", ["variable", "file", "etcdctl"])
def test_a_password_that_would_cross_plain_http_is_refused(endpoints, where, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    user = {
        "variable": {"CONFIGSTORE_USER": "joe", "CONFIGSTORE_PASSWORD": SECRET},
        "file": {"CONFIGSTORE_USER": "joe", "CONFIGSTORE_PASSWORD_FILE": str(tmp_path / "secret")},
        "etcdctl": {"ETCDCTL_USER": f"joe:{SECRET}"},
    }[where]
    with pytest.raises(UsageError, match=r"a password is set.* expected https://") as caught:
        load_store(environ={"CONFIGSTORE_ENDPOINTS": endpoints, **user})
    assert caught.value.exit_code == 2
    assert SECRET not in str(caught.value)
    assert load_store(environ={"CONFIGSTORE_ENDPOINTS": endpoints}).endpoints == tuple(endpoints.split(","))


@pytest.mark.parametrize(
    "endpoints",
    [
        "https://192.0.2.1:2379,https://etcd:2379",
        "http://127.0.0.1:1,http://127.8.9.10:2",
        "http://localhost:1",
        "http://[::1]:1",
    ],
)
def test_a_password_goes_over_tls_or_stays_on_this_machine(endpoints):
    user = {"CONFIGSTORE_USER": "joe", "CONFIGSTORE_PASSWORD": SECRET}
    assert load_store(environ={"CONFIGSTORE_ENDPOINTS": endpoints, **user}).password == SECRET


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"table": {"endpoint": []}}, ["f.toml: store.endpoint", "unknown", "endpoints"]),
        ({"table": {"endpoints": [1]}}, ["f.toml: store.endpoints", "expected URLs"]),
        ({"table": {"root": "a"}}, ["f.toml: store.root", "/configstore"]),
        ({"table": {"timeout": 0}}, ["f.toml: store.timeout", "above 0"]),
        ({"environ": {"CONFIGSTORE_TIMEOUT": "soon"}}, ["CONFIGSTORE_TIMEOUT", "expected a duration"]),
        ({"environ": {"CONFIGSTORE_ENDPOINTS": "ftp://a:1"}}, ["CONFIGSTORE_ENDPOINTS", "expected URLs"]),
        ({"environ": {"CONFIGSTORE_ENDPOINTS": "http://a"}}, ["CONFIGSTORE_ENDPOINTS", "expected URLs"]),
        ({"environ": {"CONFIGSTORE_ENDPOINTS": "http://a:99999"}}, ["CONFIGSTORE_ENDPOINTS", "expected URLs"]),
        ({"environ": {"CONFIGSTORE_PASSWORD_FILE": "/nowhere/x"}}, ["CONFIGSTORE_PASSWORD_FILE", "/nowhere/x"]),
        ({"environ": {"ETCDCTL_ENDPOINTS": "a"}}, ["ETCDCTL_ENDPOINTS", "expected URLs"]),
        ({"options": {"server_name": ""}}, ["--server-name", "expected a text"]),
        ({"options": {"cacert": "/ca"}}, ["cacert", "not TLS"]),
        ({"environ": {"CONFIGSTORE_PASSWORD": SECRET}}, ["password is set without user"]),
        ({"table": {"password": SECRET, "password_file": "x", "user": "a"}}, ["store.password", "not both"]),
        ({"options": {"endpoints": "https://a:1", "cert": "/c"}}, ["cert is set without key"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(layers, words):
    with pytest.raises(UsageError) as caught:
        load_store(**{"environ": {}, "source": "f.toml", **layers})
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "layers",
    [
        {"options": {"user": f"joe:{SECRET}"}},
        {"environ": {"CONFIGSTORE_USER": f"joe:{SECRET}"}},
        {"environ": {"CONFIGSTORE_ENDPOINTS": f"http://joe:{SECRET}@a:1"}},
        {"environ": {"ETCDCTL_USER": f":{SECRET}", "CONFIGSTORE_ROOT": "x"}},
        {"table": {"password": [SECRET]}},
    ],
)
def test_an_error_never_quotes_a_secret(layers):
    with pytest.raises(UsageError) as caught:
        load_store(**{"environ": {}, "source": "f.toml", **layers})
    assert SECRET not in str(caught.value)


def test_settings_are_frozen_and_know_their_fields():
    with pytest.raises(AttributeError):
        StoreSettings().root = "/x"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"rot": "/x"}, StoreSettings)


@pytest.mark.parametrize("content", [b"a = ", b"\xff"])
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.toml: not a TOML file"):
        read_toml(str(tmp_path / "c.toml"))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"/nowhere/c\.toml: No such file"):
        read_toml("/nowhere/c.toml")


def test_a_misspelt_variable_is_refused_with_the_nearest_name():
    with pytest.raises(
        UsageError, match="CONFIGSTORE_ENDPOINT: unknown variable; did you mean CONFIGSTORE_ENDPOINTS"
    ):
        check_variables({"CONFIGSTORE_ENDPOINT": "x"}, ())


def test_what_kubernetes_adds_for_a_service_of_our_name_is_left_alone():
    names = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_CLIENT", "PORT", "PORT_2379_TCP", "PORT_2379_TCP_ADDR"]
    names += ["ETCD_PORT_2379_TCP_PROTO"]
    check_variables({f"CONFIGSTORE_{name}": "x" for name in names}, ())


def test_a_misspelt_variable_that_is_empty_is_none():
    check_variables({"CONFIGSTORE_ENDPOINT": ""}, ())


def test_the_client_that_stands_alone_has_the_limits_of_the_store():
    assert (client.TTL, client.MAX_TTL) == (leases.TTL, leases.MAX_TTL)
