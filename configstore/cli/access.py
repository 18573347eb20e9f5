"""`access`: a certificate, a user and a role of etcd for each service, with the rights that its mappings need.

What the verbs need is imported when they run: most commands are not about access.
"""

import argparse
from functools import partial

from configstore.cli.arguments import Commands, add_command, flag, option, run_of
from configstore.cli.render import table, write_json
from configstore.cli.session import say
from configstore.errors import UsageError

_FORMATS = ("files", "swarm", "kubernetes")

_CANNOT = (
    "each as the user mailu-SERVICE, which its certificate names. What etcd has no rights for: any user may grant"
    " leases, list all, and end those that hold no key; nothing limits how much a service writes in its own ranges"
)


def add(commands: Commands) -> None:
    """Add the parsers."""
    text = "give each service a certificate, a user and a role of its own at etcd"
    group = add_command(commands, "access", _nothing, text, connects=False, as_json=False)
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore access")
    verb = partial(add_command, verbs, group="access")
    plan = verb("plan", _plan, "print the rights that each service gets")
    text = "make certificates, users and roles, then switch access control on"
    apply = verb("apply", run_of("access_apply"), text)
    verify = verb("verify", run_of("access_verify"), "check that certificates, users and roles are as planned")
    revoke = verb("revoke", run_of("access_revoke"), "delete the user and the role of a service")
    for parser in (plan, apply, verify):
        text = "mailu (default): all its services; mailu/front: one; a,b: those of one sidecar; repeatable"
        option(parser, "--preset NAME", text, action="append")
        option(parser, "--config FILE", "settings file of one sidecar, whose presets are those of --preset")
        text = "name of the one sidecar that has all of --preset or --config, such as a host's"
        option(parser, "--service NAME", text)
    for parser in (apply, verify, revoke):
        option(parser, "--out DIR", "folder of the certificates; the operator's certificate in it is used")
    text = "name or address in etcd's certificate (default: etcd, localhost, the endpoints' hosts); repeatable"
    option(apply, "--etcd-name NAME", text, action="append", default=[])
    option(apply, "--ca-cert FILE", "your own authority for client certificates, instead of one made here")
    option(apply, "--ca-key FILE", "key of --ca-cert; it is not copied")
    flag(apply, "--roll-over", "take the next of the three steps to new authorities")
    text = "write them for this kind of deployment, too (default: files)"
    apply.add_argument("--format", choices=_FORMATS, default="files", help=text)
    flag(apply, "--without-auth", "do not switch access control on")
    flag(apply, "--dry-run", "only say what would be done")
    flag(apply, "--yes", "switch access control on without asking, whoever is connected")
    revoke.add_argument("service", metavar="SERVICE", help="such as front, or the name of any user but root")


def _nothing(_: argparse.Namespace) -> int:
    raise UsageError("access: type a verb; `configstore access --help` lists them")


def _plan(args: argparse.Namespace) -> int:
    from configstore.cli.access_whom import services_of, settings_of  # noqa: PLC0415 - see the top
    from configstore.model.grants import grants, words  # noqa: PLC0415 - as above
    from configstore.model.keys import Keys  # noqa: PLC0415 - as above
    from configstore.model.path import printable  # noqa: PLC0415 - as above

    services, keys = services_of(args), Keys(settings_of(args).root)
    rows = [(service, grant) for service in services for grant in grants(keys, service)]
    if args.json:
        write_json(
            [
                {
                    "service": service.name,
                    "user": service.user,
                    "right": str(grant.right),
                    "start": grant.start.decode("utf-8", "backslashreplace"),
                    "end": grant.end.decode("utf-8", "backslashreplace"),
                }
                for service, grant in rows
            ]
        )
        return 0
    table(
        ("SERVICE", "RIGHT", f"KEYS BELOW {keys.root}/"),
        [(service.name, str(grant.right), words(keys.root, grant, printable)) for service, grant in rows],
    )
    say(_CANNOT)
    return 0
