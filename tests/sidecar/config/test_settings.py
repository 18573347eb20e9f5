"""The daemon's configuration: what it is made of, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configstore.errors import UsageError
from configstore.mapping_settings import OwnerOverride, WatchMode
from configstore.model.selection import Direction, Symlinks
from configstore.settings import StoreSettings
from sidecar.config.settings import LogFormat, LogLevel, load_config

FULL = """
[store]
endpoints = ["http://a:1", "http://b:2"]
root = "/there"
[[mapping]]
name = "certs"
store = "tls/certs"
path = "/certs/"
direction = "push"
include = ["*.pem"]
exclude = ["*-chain.pem"]
required = false
lease = "letsencrypt"
settle = "250ms"
symlinks = "resolve"
delete_settle = "2s"
max_delete = 0.25
check = ["nginx", "-t"]
on_change = ["pkill", "-HUP", "-x", "nginx"]
on_problem = ["mail-on-problem", "postmaster@example.org"]
retention = "7d"
keep = 12
create_once = true
watch = "poll"
rescan = 30
owner = "100:101"
file_mode = "0600"
dir_mode = "0700"
refuse_empty = ["*.key"]
[control]
socket = "/run/x.sock"
[health]
listen = "[::]:9000"
[log]
level = "debug"
format = "json"
"""


@pytest.fixture
def load(tmp_path):
    def load(text="", environ=None, **options):
        file = None
        if text:
            file = tmp_path / "c.toml"
            file.write_text(text)
        return load_config(file=str(file) if file else None, environ=environ or {}, options=options)

    return load


@pytest.fixture
def refused(load):
    def refused(*args, **kwargs):
        with pytest.raises(UsageError) as caught:
            load(*args, **kwargs)
        assert caught.value.exit_code == 2
        return str(caught.value)

    return refused


def table(name, path, *lines):
    return "\n".join(["[[mapping]]", f'name = "{name}"', f'path = "{path}"', *lines, ""])


def test_a_file_says_everything(load):
    config = load(FULL)
    (certs,) = config.mappings
    assert config.store == StoreSettings(endpoints=("http://a:1", "http://b:2"), root="/there")
    assert (certs.name, certs.store, certs.path) == ("certs", "tls/certs", "/certs")
    assert (certs.direction, certs.symlinks, certs.watch) == (Direction.PUSH, Symlinks.RESOLVE, WatchMode.POLL)
    assert (certs.include, certs.exclude, certs.refuse_empty) == (("*.pem",), ("*-chain.pem",), ("*.key",))
    assert (certs.settle, certs.delete_settle, certs.retention, certs.rescan) == (0.25, 2.0, 7 * 86400.0, 30.0)
    assert certs.keep == 12
    assert (certs.required, certs.create_once, certs.max_delete, certs.lease) == (False, True, 0.25, "letsencrypt")
    assert (certs.owner, certs.file_mode, certs.dir_mode) == (OwnerOverride(uid=100, gid=101), 0o600, 0o700)
    assert (certs.check, certs.on_change) == (("nginx", "-t"), ("pkill", "-HUP", "-x", "nginx"))
    assert certs.on_problem == ("mail-on-problem", "postmaster@example.org")
    assert (config.control_socket, config.health_listen) == ("/run/x.sock", "[::]:9000")
    assert (config.log_level, config.log_format, config.timeout) == (LogLevel.DEBUG, LogFormat.JSON, 60.0)


def test_a_container_needs_no_file(load):
    config = load(environ={"CONFIGSTORE_PRESET": "mailu/front", "CONFIGSTORE_ENDPOINTS": "https://etcd:2379"})
    assert [mapping.name for mapping in config.mappings] == ["certs", "letsencrypt", "overrides-nginx"]
    assert config.store.endpoints == ("https://etcd:2379",)
    assert config.control_socket == "/run/configstore/control.sock"
    assert config.health_listen == "127.0.0.1:9650"


def test_several_presets_come_with_commas_between(load):
    config = load(environ={"CONFIGSTORE_PRESET": "mailu/imap, mailu/admin"})
    assert {mapping.name for mapping in config.mappings} == {"overrides-dovecot", "instance", "dkim"}


def test_two_presets_that_differ_about_one_mapping_are_refused(refused):
    assert "'dkim'" in refused(environ={"CONFIGSTORE_PRESET": "mailu/admin,mailu/rspamd"})


def test_the_store_defaults_to_the_name(load):
    assert load(table("certs", "/certs")).mappings[0].store == "certs"


def test_the_environment_wins_over_the_file_and_options_over_both(load):
    environ = {
        "CONFIGSTORE_HEALTH_LISTEN": "none",
        "CONFIGSTORE_LOG_LEVEL": "error",
        "CONFIGSTORE_REPLICA": "front-1",
        "CONFIGSTORE_ROOT": "/env",
        "CONFIGSTORE_TIMEOUT": "3s",
    }
    config = load(FULL, environ, log_level="warning", root="/option", timeout="5m", health_listen=None)
    assert (config.health_listen, config.log_level, config.replica) == ("", LogLevel.WARNING, "front-1")
    assert (config.store.root, config.store.timeout, config.timeout) == ("/option", 3.0, 300.0)


def test_an_empty_variable_is_an_unset_one(load):
    names = [
        "HEALTH_LISTEN",
        "CONTROL_SOCKET",
        "LOG_LEVEL",
        "REPLICA",
        "STOP_TIMEOUT",
        "PRESET",
        "ENDPOINTS",
        "NONSENSE",
    ]
    names += ["MAPPING_A_LEASE", "MAPPING_A_EXCLUDE", "MAPPING_A_REQUIRED", "MAPPING_NONE_PATH", "PASSWORD_FILE"]
    text = FULL + table("a", "/a", 'lease = "one"', 'exclude = ["*.bak"]')
    kept = load(text, {f"CONFIGSTORE_{name}": "" for name in names} | {"CONFIGSTORE_REPLICA": "r"})
    assert kept == load(text, {"CONFIGSTORE_REPLICA": "r"})


def test_a_word_switches_off_what_an_empty_variable_leaves_as_it_is(load):
    environ = {"CONFIGSTORE_CONTROL_SOCKET": "none", "CONFIGSTORE_MAPPING_A_SIGNAL": "none"}
    config = load(table("a", "/a", 'signal = "HUP:nginx"'), environ)
    assert (config.control_socket, config.mappings[0].signal) == ("", None)


@pytest.mark.parametrize("listen", ["[::]:9650", "[::1]:9650", ":9650", "localhost:0"])
def test_an_address_to_listen_at_may_be_of_ipv6(load, listen):
    assert load(table("a", "/a"), {"CONFIGSTORE_HEALTH_LISTEN": listen}).health_listen == listen


def test_an_option_names_the_preset(load):
    config = load(environ={"CONFIGSTORE_PRESET": "mailu/front"}, preset="mailu/imap")
    assert [mapping.name for mapping in config.mappings] == ["overrides-dovecot"]


def test_replicas_differ_without_being_told(load):
    text = table("a", "/a")
    assert load(text).replica != load(text).replica


def test_the_file_overrides_a_preset_key_by_key(load):
    text = '[[mapping]]\nname = "letsencrypt"\npath = "/le"\nretention = "1d"\n'
    config = load(text, {"CONFIGSTORE_PRESET": "mailu/front"})
    one = next(mapping for mapping in config.mappings if mapping.name == "letsencrypt")
    assert (one.path, one.retention, one.lease, one.store) == ("/le", 86400.0, "letsencrypt", "certs/letsencrypt")


def test_variables_override_single_keys(load):
    environ = {
        "CONFIGSTORE_PRESET": "mailu/front",
        "CONFIGSTORE_MAPPING_OVERRIDES_NGINX_SIGNAL": "HUP:nginx",
        "CONFIGSTORE_MAPPING_OVERRIDES_NGINX_EXCLUDE": "*.bak, *.old",
        "CONFIGSTORE_MAPPING_OVERRIDES_NGINX_OWNER": ":33",
        "CONFIGSTORE_MAPPING_CERTS_ON_CHANGE": "sh -c 'echo done'",
        "CONFIGSTORE_MAPPING_CERTS_CHECK": '["nginx", "-t"]',
        "CONFIGSTORE_MAPPING_CERTS_ON_PROBLEM": "mail-on-problem --host 'a b'",
        "CONFIGSTORE_MAPPING_LETSENCRYPT_REQUIRED": "false",
        "CONFIGSTORE_MAPPING_LETSENCRYPT_LEASE": "none",
    }
    certs, letsencrypt, nginx = load(environ=environ).mappings
    assert (nginx.signal, nginx.exclude, nginx.owner) == ("HUP:nginx", ("*.bak", "*.old"), OwnerOverride(gid=33))
    assert (certs.on_change, certs.check) == (("sh", "-c", "echo done"), ("nginx", "-t"))
    assert certs.on_problem == ("mail-on-problem", "--host", "a b")
    assert (letsencrypt.required, letsencrypt.lease) == (False, None)


def test_a_variable_that_could_mean_two_mappings_is_refused(refused):
    text = table("a-b", "/a") + table("a.b", "/b")
    assert "CONFIGSTORE_MAPPING_A_B_PATH" in refused(text, {"CONFIGSTORE_MAPPING_A_B_PATH": "/c"})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("CONFIGSTORE_ENDPOINT", "CONFIGSTORE_ENDPOINTS"),
        ("CONFIGSTORE_PRESETS", "CONFIGSTORE_PRESET"),
        ("CONFIGSTORE_MAPPING_DKIM_PAHT", "CONFIGSTORE_MAPPING_DKIM_PATH"),
        ("CONFIGSTORE_LOGLEVEL", "CONFIGSTORE_LOG_LEVEL"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(refused, variable, nearest):
    said = refused(environ={"CONFIGSTORE_PRESET": "mailu/admin", variable: "x"})
    assert variable in said
    assert f"did you mean {nearest}?" in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('lese = "x"', ["mapping a: lese", "unknown", "lease"]),
        ('direction = "sideways"', ["direction", "both, pull, push"]),
        ('symlinks = "follow"', ["symlinks", "preserve, resolve, refuse"]),
        ('watch = "magic"', ["watch", "auto, inotify, poll"]),
        ('settle = "soon"', ["settle", "expected a duration"]),
        ("rescan = 0", ["rescan", "above 0"]),
        ("keep = 0", ["keep", "from 1 to 100000"]),
        ("keep = true", ["keep", "from 1 to 100000"]),
        ("max_delete = 2", ["max_delete", "between 0 and 1"]),
        ("max_delete = true", ["max_delete", "between 0 and 1"]),
        ('required = "maybe"', ["required", "true or false"]),
        ('owner = "root:root"', ["owner", "uid:gid"]),
        ('owner = "4294967295:0"', ["owner", "below 4294967295"]),
        ('owner = ":"', ["owner", "uid:gid"]),
        ('file_mode = "4755"', ["file_mode", "octal"]),
        ("file_mode = 600", ["file_mode", "octal"]),
        ("include = []", ["include", "at least one"]),
        ('include = ["!"]', ["include", "expected patterns"]),
        ("exclude = 3", ["exclude", "expected patterns"]),
        ('check = ["a", 3]', ["check", "argument list"]),
        ('signal = "HUP"', ["signal", "HUP:nginx"]),
        ('signal = "NOPE:nginx"', ["signal", "HUP:nginx"]),
        ('signal = "HUP:nginx"\non_change = ["x"]', ["signal", "not both"]),
        ('store = "../x"', ["store", "'..'"]),
        ('lease = "a/b"', ["lease", "letters"]),
        ("path = 3", ["path", "expected"]),
    ],
)
def test_a_bad_value_is_named_with_file_key_and_what_was_expected(refused, line, words):
    path = "" if line.startswith("path") else 'path = "/a"\n'
    said = refused(f'[[mapping]]\nname = "a"\n{path}{line}\n')
    assert "c.toml" in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("path", ["certs", "./certs", "", "/", "//", "/a/../b"])
def test_a_directory_is_absolute_and_plain(refused, path):
    assert "mapping a: path" in refused(table("a", path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stoer]\n", ["stoer", "store"]),
        ("store = 3\n", ["store", "table"]),
        ("mapping = 3\n", ["mapping", "[[mapping]]"]),
        ("[health]\nlisten = 'x'\n", ["health.listen", "host:port"]),
        ("[control]\nsocket = 'x'\n", ["control.socket", "absolute"]),
        ("[log]\nlevel = 'loud'\n", ["log.level", "debug"]),
        ("[[mapping]]\npath = '/a'\n", ["name", "missing"]),
        ("[[mapping]]\nname = 'a'\n", ["mapping a: path", "missing"]),
        (table("a/b", "/a"), ["name", "letters"]),
        (table("a", "/a") + table("a", "/b"), ["name", "used twice"]),
        (table("a", "/a") + table("b", "/a/"), ["mappings a and b", "/a"]),
        (table("a", "/a") + table("b", "/b", 'store = "a"'), ["mappings a and b", "subtree"]),
        ("[store]\nroot = '/x'\n", ["no mapping", "mailu/front"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(refused, text, words):
    said = refused(text)
    assert all(word in said for word in words), said


def test_nothing_at_all_is_refused(refused):
    assert "no mapping" in refused()


def test_an_inner_mapping_takes_its_part_out_of_the_outer_by_subtree_and_by_directory(load):
    text = (
        table("outer", "/data", 'store = "all"')
        + table("by-store", "/elsewhere", 'store = "all/x/y"')
        + table("by-directory", "/data/sub/dir", 'store = "other"')
        + table("neighbour", "/data-old", 'store = "all-old"')
    )
    outer, by_store, by_directory, neighbour = load(text).mappings
    assert outer.holes == ("sub/dir", "x/y")
    assert (by_store.holes, by_directory.holes, neighbour.holes) == ((), (), ())
    assert not outer.selects("x/y/file", is_dir=False)
    assert not outer.enters("sub/dir")
    assert outer.selects("x/file", is_dir=False)


def test_a_mapping_of_the_whole_tree_leaves_the_others_theirs(load):
    outer, _ = load(table("all", "/all", 'store = "/"') + table("dkim", "/dkim")).mappings
    assert (outer.store, outer.holes) == ("", ("dkim",))


@given(st.dictionaries(st.sampled_from(["path", "store", "owner", "settle", "include", "signal"]), st.text()))
def test_any_text_is_a_value_or_an_error_about_its_key(values):
    environ = {"CONFIGSTORE_PRESET": "mailu/imap"}
    environ |= {f"CONFIGSTORE_MAPPING_OVERRIDES_DOVECOT_{key.upper()}": text for key, text in values.items()}
    try:
        said, path = "", load_config(file=None, environ=environ, options={}).mappings[0].path
    except UsageError as error:
        said, path = str(error), "/"
    assert not said or any(key.upper() in said for key in values)
    assert path.startswith("/")
    assert ".." not in path.split("/")


def test_a_mapping_knows_in_whose_directory_it_lies(load):
    config = load(environ={"CONFIGSTORE_PRESET": "mailu/snappymail"})
    within = {mapping.name: mapping.within for mapping in config.mappings}
    assert within == {"rainloop-salt": "", "rainloop": "/data"}


def test_a_variable_of_a_mapping_that_presets_had_once_ends_nothing_and_is_told(load):
    environ = {
        "CONFIGSTORE_PRESET": "mailu/snappymail",
        "CONFIGSTORE_MAPPING_OVERRIDES_SNAPPYMAIL_PATH": "/overrides",
    }
    config = load(environ=environ)
    assert [mapping.name for mapping in config.mappings] == ["rainloop-salt", "rainloop"]
    assert len(config.notes) == 1
    assert "CONFIGSTORE_MAPPING_OVERRIDES_SNAPPYMAIL_PATH: has no effect" in config.notes[0]
    assert not load(environ={"CONFIGSTORE_PRESET": "mailu/snappymail"}).notes


HOST = "mailu/admin,mailu/front,mailu/imap,mailu/smtp,mailu/antispam,mailu/fetchmail,mailu/webmail"
EACH = {"CONFIGSTORE_PRESET": HOST, "CONFIGSTORE_LOCAL": "/m"}
GROUPS = "CONFIGSTORE_CONTROL_GROUPS"


def test_all_services_of_a_host_have_a_folder_each(load):
    config = load(environ=EACH | {"CONFIGSTORE_LOCAL": "/mirror"})
    found = {mapping.name: (mapping.service, mapping.path) for mapping in config.mappings}
    assert found == {
        "instance": ("admin", "/mirror/admin/data"),
        "dkim": ("admin", "/mirror/admin/dkim"),
        "certs": ("front", "/mirror/front/certs"),
        "letsencrypt": ("front", "/mirror/front/certs/letsencrypt"),
        "overrides-nginx": ("front", "/mirror/front/overrides"),
        "overrides-dovecot": ("imap", "/mirror/imap/overrides"),
        "overrides-postfix": ("smtp", "/mirror/smtp/overrides"),
        "overrides-rspamd": ("antispam", "/mirror/antispam/overrides"),
        "fetchmail": ("fetchmail", "/mirror/fetchmail/data"),
        "gpg": ("webmail", "/mirror/webmail/data/gpg"),
        "rainloop-salt": ("webmail", "/mirror/webmail/data"),
        "rainloop": ("webmail", "/mirror/webmail/data/_data_/_default_/storage"),
        "overrides-roundcube": ("webmail", "/mirror/webmail/overrides"),
    }
    assert config.services == ("admin", "front", "imap", "smtp", "antispam", "fetchmail", "webmail")
    assert config.socket_of("front") == "/run/configstore/front/control.sock"


def test_a_products_name_is_all_its_services_with_what_runs_beside_them(load):
    config = load(environ={"CONFIGSTORE_PRESET": "mailu"}, local="/mirror")
    found = {mapping.name: mapping for mapping in config.mappings}
    assert len(found) == 17
    assert (found["acme"].service, found["acme"].path) == ("front", "/mirror/front/acme")
    assert found["admin-start"].path == "/tmp/admin-start", "no application mounts it"


def test_a_preset_that_takes_anothers_place_has_its_folder(load):
    found = load(environ={"CONFIGSTORE_PRESET": "mailu/snappymail,mailu/webmail-start", "CONFIGSTORE_LOCAL": "/m"})
    assert {mapping.service for mapping in found.mappings} == {"webmail"}


def test_a_mapping_of_the_file_is_of_no_service_and_stays_where_it_is(load):
    config = load(table("own", "/own"), {"CONFIGSTORE_PRESET": "mailu/imap", "CONFIGSTORE_LOCAL": "/mirror"})
    assert [(mapping.service, mapping.path) for mapping in config.mappings][-1] == ("", "/own")
    assert config.services == ("imap", "")
    assert config.socket_of("") == "/run/configstore/control.sock"


def test_without_a_folder_for_each_service_there_is_one_socket(load):
    config = load(environ={"CONFIGSTORE_PRESET": "mailu/imap,mailu/admin"})
    assert (config.services, config.socket_of("")) == (("",), "/run/configstore/control.sock")
    off = load(
        environ={"CONFIGSTORE_PRESET": HOST, "CONFIGSTORE_LOCAL": "/m", "CONFIGSTORE_CONTROL_SOCKET": "none"}
    )
    assert off.socket_of("front") == ""


def test_a_group_is_of_one_service_or_of_all(load):
    environ = {
        "CONFIGSTORE_PRESET": HOST,
        "CONFIGSTORE_LOCAL": "/m",
        "CONFIGSTORE_CONTROL_GROUPS": "fetchmail:101",
    }
    config = load(environ=environ)
    assert (config.group_of("fetchmail"), config.group_of("front")) == (101, None)
    config = load(environ=environ | {"CONFIGSTORE_CONTROL_GROUP": "7"})
    assert (config.group_of("fetchmail"), config.group_of("front")) == (101, 7)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"CONFIGSTORE_PRESET": "mailu/front,mailu/fronts"}, "'mailu/fronts': unknown; did you mean mailu/front"),
        ({"CONFIGSTORE_PRESET": "mailu/front,mailu/imap,mailu/front"}, "has mailu/front twice"),
        ({"CONFIGSTORE_PRESET": "mailu,mailu/front"}, "has mailu/front twice"),
        ({"CONFIGSTORE_PRESET": "mailu/front,,mailu/imap"}, "a name is empty"),
        ({"CONFIGSTORE_PRESET": "mailu/front,"}, "a name is empty"),
        ({"CONFIGSTORE_PRESET": "mailu/front,mailu/nginx"}, "mailu/front and mailu/nginx: both are for front"),
        ({"CONFIGSTORE_PRESET": "mailu/webmail,mailu/snappymail"}, "both are for webmail: choose one"),
        ({"CONFIGSTORE_PRESET": "mailu/front,mailu/certs-source"}, "both have a mapping 'certs'"),
        ({"CONFIGSTORE_PRESET": HOST}, "CONFIGSTORE_LOCAL gives each service of a host a folder"),
        (EACH | {"CONFIGSTORE_LOCAL": "mirror"}, "CONFIGSTORE_LOCAL: expected an absolute"),
        ({"CONFIGSTORE_PRESET": "mailu/imap", GROUPS: "imap:1"}, "set CONFIGSTORE_LOCAL"),
        (EACH | {GROUPS: "fetch:1"}, "control.groups: fetch: no such service here"),
        (EACH | {GROUPS: "101"}, f"{GROUPS}: expected services with the numbers of their groups"),
        (EACH | {GROUPS: "fetchmail:x"}, "expected services with"),
        (EACH | {GROUPS: "fetchmail:1,fetchmail:2"}, "expected services with"),
        (EACH | {GROUPS: "fetchmail:4294967295"}, "expected services with"),
        (EACH | {"CONFIGSTORE_CONTROL_SOCKET": f"/{'x' * 90}/control.sock"}, "the folder of admin included"),
    ],
)
def test_what_cannot_run_in_one_sidecar_is_refused_and_named(refused, environ, words):
    assert words in refused(environ=environ)
