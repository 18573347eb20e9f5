"""`seal keygen`: makes a master key, and the keyrings that are derived from it."""

import argparse
import os
from collections.abc import Sequence

from configstore import presets
from configstore.cli.arguments import typed_path
from configstore.cli.render import write_json
from configstore.cli.session import now, say
from configstore.errors import UsageError
from configstore.keyrings.folder import named, opened
from configstore.model.path import StorePath, shell_word, shown
from configstore.model.seal import Key, Keyring, Master


def run(args: argparse.Namespace) -> int:
    """Run `seal keygen` and return its exit code."""
    subtrees = [_subtree(text) for text in args.subtree]
    services = _services(args.preset)
    wanted = named(list(dict.fromkeys(subtrees)), services, one=args.one)
    stores = {*subtrees, *(root for name in args.preset for root in presets.roots(name))}
    with opened(args.out, make=True) as folder:
        before = folder.master
        written = folder.add(wanted, stores, made=now())
        master = folder.master
        rings = dict(sorted(folder.keyrings.items()))
    if args.json:
        write_json(
            {
                "master": folder.master_file,
                "written": [folder.file(name) for name in written],
                "keyrings": [
                    {"file": folder.file(name), "keys": [_key_fields(key) for key in ring.keys]}
                    for name, ring in rings.items()
                ],
            }
        )
    for name in written:
        ring = rings.get(name)
        what = f"opens {_names(ring)}" if ring else f"the master, which opens everything; {_secrets(master)}"
        say(f"{folder.file(name)}: {what}")
    if not written:
        say(f"{folder.file('')}: has all of this already; nothing was changed")
    if before and master != before:
        say("the master has more subtrees now: print it again")
    say(f"{folder.master_file} belongs on no host of a sidecar: keep it offline, and printed, in two places")
    say("without it, and without a keyring, nobody can read what was sealed: there is no other way")
    if rings:
        say('give each service its keyring alone, as CONFIGSTORE_SEAL_KEYRING; `seal = "accept"` while it is new')
    say(f"then: configstore seal rotate --seal-keyring {shell_word(os.path.join(args.out, 'master'))}")
    return 0


def _subtree(text: str) -> StorePath:
    if text.strip("/") == "":
        raise UsageError("--subtree /: the whole store's key is the master's; name a subtree such as certs")
    return typed_path(text.removesuffix("/"))


def _services(names: Sequence[str]) -> dict[str, tuple[StorePath, ...]]:
    """Return the subtrees of each service that presets name."""
    found: dict[str, tuple[StorePath, ...]] = {}
    for name in names:
        presets.load(name)  # says what is known when it is unknown
        services = [name] if "/" in name else [each for each in presets.names() if each.startswith(f"{name}/")]
        for service in services:
            key = service.partition("/")[2]
            found[key] = tuple(sorted({*found.get(key, ()), *presets.roots(service)}))
    return found


def _names(ring: Keyring) -> str:
    return ", ".join(shown(store) or "/" for store in sorted({key.subtree for key in ring.keys}))


def _secrets(master: Master | None) -> str:
    count = len(master.secrets) if master else 0
    return f"{count} secret{'s' if count != 1 else ''}"


def _key_fields(key: Key) -> dict[str, object]:
    return {"id": key.id, "subtree": key.subtree or "/", "made": key.made or None}
