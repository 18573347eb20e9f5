"""`access`: a certificate, a user and a role of etcd for each service, with what its mappings need and no more.

What the verbs need is imported when they run: most commands are not about access.
"""

import argparse

from configstore.cli.arguments import Commands, add_command
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
    group = add_command(
        commands,
        "access",
        _nothing,
        "a certificate, a user and a role of etcd for each service",
        connects=False,
    )
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore access")
    plan = add_command(verbs, "plan", _plan, "print what each service may do", listed=True, group="access")
    apply = add_command(
        verbs, "apply", _apply, "make certificates, users and roles; then switch access control on",
        listed=True, group="access",
    )  # fmt: skip
    verify = add_command(
        verbs,
        "verify",
        _verify,
        "tell whose certificate, user or role is not as planned",
        listed=True,
        group="access",
    )
    revoke = add_command(
        verbs, "revoke", _revoke, "take a service's user and role away", listed=True, group="access"
    )
    for parser in (plan, apply, verify):
        parser.add_argument(
            "--preset",
            metavar="NAME",
            action="append",
            help="mailu (default): all of today's; mailu/front: one; a,b: of one sidecar; may be repeated",
        )
        parser.add_argument(
            "--config", metavar="FILE", help="one sidecar's settings, with its presets by --preset"
        )
        parser.add_argument(
            "--service",
            metavar="NAME",
            help="one sidecar for all that --preset or --config names, such as a host's, is called so",
        )
    for parser in (apply, verify, revoke):
        parser.add_argument("--out", metavar="DIR", help="the certificates' directory; the operator's is used")
    apply.add_argument(
        "--etcd-name",
        metavar="NAME",
        action="append",
        default=[],
        help="a name or address of etcd, for its certificate (default: etcd, localhost, the endpoints' hosts);"
        " may be repeated",
    )
    apply.add_argument(
        "--ca-cert", metavar="FILE", help="your own authority for clients, rather than one made here"
    )
    apply.add_argument("--ca-key", metavar="FILE", help="its key; it is not copied")
    apply.add_argument(
        "--roll-over", action="store_true", help="take the next of three steps to other authorities"
    )
    apply.add_argument("--format", choices=_FORMATS, default="files", help="also as what a deployment takes")
    apply.add_argument("--without-auth", action="store_true", help="leave access control as it is")
    apply.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    apply.add_argument("--yes", action="store_true", help="switch access control on whoever is connected")
    revoke.add_argument("service", metavar="SERVICE", help="such as front, or the name of any user but root")


def _nothing(_: argparse.Namespace) -> int:
    raise UsageError("access: expected a verb; `configstore access --help` lists them")


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


def _apply(args: argparse.Namespace) -> int:
    from configstore.cli.access_apply import run  # noqa: PLC0415 - see the top

    return run(args)


def _verify(args: argparse.Namespace) -> int:
    from configstore.cli.access_verify import run  # noqa: PLC0415 - see the top

    return run(args)


def _revoke(args: argparse.Namespace) -> int:
    from configstore.cli.access_revoke import run  # noqa: PLC0415 - see the top

    return run(args)
