"""The command line itself: options, exit codes, hostile input, and what it loads."""

import socket
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configstore import __version__
from configstore.model.path import PathError, parse_path

SECRET = "hunter2-very-secret"
HOSTILE = [
    "",
    "/etc/passwd",
    "//",
    "..",
    "../x",
    "a/../b",
    "a//b",
    "a/./b",
    ".configstore/x",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "a/",
    "x" * 300,
    "a/" * 1200 + "a",
    "\udcff",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_an_unsafe_path_is_refused_before_anything_is_asked_or_changed(offline, path):
    nowhere = ("--endpoints", "http://127.0.0.1:1", "--timeout", "1s")
    done = offline(*nowhere, "put", path, stdin=b"x")
    assert (done.code, "unsafe path" in done.err, done.out) == (5, True, b"")
    assert done.err.count("\n") == 1
    assert done.err.strip().isprintable()


@pytest.mark.parametrize("path", [path for path in HOSTILE if path != "a/"])
@pytest.mark.parametrize("command", ["ls", "stat", "rm", "mkdir", "watch", "get", "history", "diff"])
def test_directories_are_checked_like_files(offline, command, path):
    assert offline("--endpoints", "http://127.0.0.1:1", command, path).code == 5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=[]), min_size=1).filter(lambda text: text[0] != "-"))
def test_any_path_is_either_sound_or_refused(offline, text):
    done = offline("--endpoints", "http://127.0.0.1:1", "--timeout", "20ms", "get", text)
    try:
        parse_path(text.removesuffix("/"))
    except PathError:
        assert done.code == (1 if text == "/" else 5)
    else:
        assert done.code == 4
    assert "Traceback" not in done.err


def test_store_options_stand_before_or_behind_the_command(offline):
    for words in (
        ("--endpoints", "bad", "ls"),
        ("ls", "--endpoints", "bad"),
        ("ls", "-l", "--endpoints=bad", "/"),
    ):
        done = offline(*words)
        assert (done.code, "--endpoints: expected URLs" in done.err) == (2, True)


def test_the_option_behind_the_command_wins(run, environment):
    good = environment["CONFIGSTORE_ENDPOINTS"]
    assert run("--endpoints", "http://127.0.0.1:1", "ls", "--endpoints", good).code == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frobnicate",),
        ("ls", "--frob"),
        ("ls", "a", "b"),
        ("put",),
        ("put", "a", "b", "c"),
        ("put", "a", "--create", "--if-revision", "3"),
        ("--time", "3", "ls"),
        ("ls", "--timeout", "soon"),
        ("ls", "--root", "noslash"),
        ("ls", "--user", "joe"),
        ("completion", "ksh"),
        ("dev", "--port", "0"),
    ],
)
def test_a_wrong_command_line_exits_with_2(offline, words):
    done = offline(*words)
    assert (done.code, done.out, "Traceback" in done.err) == (2, b"", False)


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "--user", f"joe:{SECRET}"),
        ("--user", f"joe:{SECRET}", "ls"),
        ("ls", "--password", SECRET),
        ("ls", f"--password={SECRET}"),
        ("ls", "--endpoints", f"http://joe:{SECRET}@host:1"),
        ("--user", "joe", "--password", SECRET, "ls"),
        ("--password", SECRET),
        ("--password", SECRET, "ls", "--frob"),
        ("ls", "--password", f"-{SECRET}"),
        ("ls", "--password", f"--{SECRET}"),
        ("ls", f"-p{SECRET}"),
        ("ls", f"-l{SECRET}"),
        ("ls", f"--json={SECRET}"),
        ("leases", "--password", SECRET),
        ("completion", "--password", SECRET),
        ("completion", "--password", f"{SECRET} (choose from ls)\n"),
        ("wait", "data", "--password", "--revision", SECRET),
        ("run", "--lease", "job", "--password", SECRET, "--", "true"),
    ],
)
def test_a_secret_in_the_arguments_is_refused_and_not_repeated(offline, words):
    done = offline(*words)
    assert done.code == 2
    assert SECRET not in done.err


def test_a_misspelt_variable_is_pointed_out(run):
    assert "did you mean CONFIGSTORE_ENDPOINTS" in run("ls", CONFIGSTORE_ENDPOINT="x").err


def test_the_sidecars_variables_are_none_of_our_business(run):
    done = run(
        "ls", CONFIGSTORE_PRESET="mailu/front", CONFIGSTORE_MAPPING_CERTS_PATH="/c", CONFIGSTORE_REPLICA="r"
    )
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", [["ls"], ["get", "a"], ["put", "a"], ["mkdir", "a"], ["rm", "a"], ["watch"]])
def test_a_store_that_refuses_exits_with_4_and_names_the_endpoints(offline, command):
    both = "http://127.0.0.1:1,http://127.0.0.1:2"
    done = offline(*command, "--endpoints", both, "--timeout", "300ms")
    assert done.code == 4
    assert all(endpoint in done.err for endpoint in both.split(","))
    assert done.err.count("\n") == 1


def test_a_store_that_is_silent_exits_with_4_in_time(offline):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = offline("ls", "--endpoints", url, "--timeout", "300ms")
    assert (done.code, url in done.err) == (4, True)


def test_version_and_help_go_to_stdout(offline):
    assert offline("--version").out == f"configstore {__version__}\n".encode()
    assert b"bootstrap" in offline("--help").out
    assert b"--if-revision" in offline("put", "--help").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_knows_the_commands(offline, shell):
    done = offline("completion", shell)
    assert done.code == 0
    assert b"bootstrap" in done.out


def test_bash_takes_the_completion(offline):
    script = offline("completion", "bash").out
    assert subprocess.run(["bash", "-n"], input=script, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["completion", "bash"], ["put", "../x"], ["frob"], ["ls", "--user", "a:b"]],
)
def test_what_needs_no_store_loads_no_grpc(words):
    code = (
        "import sys; from configstore.cli import main; main(sys.argv[1:]); "
        "from configstore.process.later import loads_later; "
        "loaded = {name.split('.')[0] for name, module in sys.modules.items() if not loads_later(module)}; "
        "sys.stderr.write('loaded: ' + ' '.join("
        "loaded & {'grpc', 'google', 'etcd3', 'sidecar', 'watchdog', 'pathspec'}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.endswith("loaded: ")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_early_is_no_drama(start, run, environment, unbuffered):
    environment["PYTHONUNBUFFERED"] = unbuffered
    run("put", "big", stdin=b"x" * 1_000_000)
    process = start("get", "big")
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(90) == 141
    assert process.stderr.read() == b""


def test_the_process_passes_bytes_through(start):
    content = bytes(range(256))
    assert start("put", "a").communicate(content, timeout=90)[0] == b""
    assert start("get", "a").communicate(timeout=90)[0] == content
