"""The examples in each command's `--help`, all typed by a test, and the groups of commands in the main help."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "files": ("put", "get", "ls", "stat", "rm", "mkdir", "watch"),
    "history": ("history", "diff", "restore"),
    "import and export": ("bootstrap", "import", "export", "presets"),
    "status and repair": ("status", "ui", "doctor", "replicas", "conflicts", "resolve", "resume"),
    "leases": ("leases", "run", "wait", "flush"),
    "sealing": ("seal",),
    "setup": ("access", "dev", "check-certificates", "completion"),
}
"""The groups of the main help."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "put": (
        "configstore put dkim/example.org.dkim.key example.org.key",
        "configstore put --if-revision 7 overrides/nginx/proxy.conf < proxy.conf",
    ),
    "get": (
        "configstore get overrides/nginx/proxy.conf",
        "configstore get certs/cert.pem --revision 7 -o cert.pem",
    ),
    "ls": ("configstore ls", "configstore ls -lR certs"),
    "stat": ("configstore stat certs/cert.pem", "configstore stat certs --json"),
    "rm": ("configstore rm overrides/nginx/proxy.conf", "configstore rm -r overrides/nginx"),
    "mkdir": ("configstore mkdir dkim", "configstore mkdir --mode 0750 certs"),
    "watch": ("configstore watch certs", "configstore watch --json"),
    "history": ("configstore history certs/cert.pem",),
    "diff": ("configstore diff overrides/nginx/proxy.conf", "configstore diff overrides/nginx/proxy.conf 7"),
    "restore": (
        "configstore restore certs/cert.pem --revision 7",
        "configstore restore -r overrides --at 2h --dry-run",
    ),
    "bootstrap": ("configstore bootstrap --preset mailu", "configstore bootstrap --preset mailu/front"),
    "import": (
        "configstore import /mailu / --preset mailu --dry-run",
        "configstore import ./overrides overrides --exclude '*.bak'",
    ),
    "export": ("configstore export / /mailu --preset mailu", "configstore export dkim ./dkim"),
    "presets": ("configstore presets", "configstore presets mailu/front"),
    "ui": ("configstore ui", "configstore ui --no-browser --port 9660 --write"),
    "status": ("configstore status", "configstore status --watch"),
    "doctor": ("configstore doctor", "configstore doctor /dkim /certs", "configstore doctor --preset mailu/front"),
    "replicas": ("configstore replicas certs", "configstore replicas forget mail-1"),
    "conflicts": ("configstore conflicts", "configstore conflicts dkim/example.org.dkim.key --show 4f2a"),
    "resolve": (
        "configstore resolve dkim/example.org.dkim.key --take store",
        "configstore resolve dkim/example.org.dkim.key --take 4f2a",
    ),
    "resume": ("configstore resume certs --take store",),
    "leases": ("configstore leases", "configstore leases break letsencrypt"),
    "run": ("configstore run --lease letsencrypt --mapping letsencrypt -- certbot renew",),
    "wait": ("configstore wait certs", "configstore wait certs --applied all --patience 30s"),
    "flush": ("configstore flush overrides-nginx",),
    "seal": (
        "configstore seal keygen --out ./keys --preset mailu",
        "configstore seal status --seal-keyring ./keys/master",
        "configstore seal rotate --seal-keyring ./keys/master",
    ),
    "seal keygen": (
        "configstore seal keygen --out ./keys --preset mailu",
        "configstore seal keygen --out ./keys --subtree certs --subtree dkim",
    ),
    "seal status": ("configstore seal status", "configstore seal status --seal-keyring ./keys/master --json"),
    "seal rotate": (
        "configstore seal rotate --seal-keyring ./keys/master",
        "configstore seal rotate --seal-keyring ./keys/master --unseal",
    ),
    "seal forget": ("configstore seal forget --seal-keyring ./keys/master",),
    "access": (
        "configstore access plan",
        "configstore access apply --out ./etcd-tls --etcd-name etcd.example.org",
        "configstore access apply --out ./etcd-tls --endpoints https://etcd.example.org:2379",
        "configstore access verify --out ./etcd-tls",
        "configstore access revoke front",
    ),
    "access plan": (
        "configstore access plan --preset mailu --preset mailu/certs-source",
        "configstore access plan --config /etc/configstore.toml --json",
    ),
    "access apply": (
        "configstore access apply --out ./etcd-tls --etcd-name etcd --dry-run",
        "configstore access apply --out ./etcd-tls --format swarm",
        "configstore access apply --out ./etcd-tls --endpoints https://etcd:2379 --without-auth",
    ),
    "access verify": ("configstore access verify --out ./etcd-tls --preset mailu",),
    "access revoke": ("configstore access revoke webmail",),
    "dev": ("configstore dev --data ./etcd --port 2379",),
    "check-certificates": ("configstore check-certificates /certs --cert cert.pem --key key.pem",),
    "completion": (
        "configstore completion bash > /etc/bash_completion.d/configstore",
        "configstore completion fish > ~/.config/fish/completions/configstore.fish",
    ),
}


def epilog(command: str, *, connects: bool) -> str | None:
    """Return the text below a command's options: its examples, and where the store's options are described."""
    parts = []
    if shown := EXAMPLES.get(command):
        parts.append("examples:\n" + "\n".join(f"  $ {line}" for line in shown))
    if connects:
        parts.append(
            "The store's options (--endpoints, --root, --cacert, …) may follow the command, too, or be set as\n"
            "variables, such as CONFIGSTORE_ENDPOINTS: `configstore --help` lists them."
        )
    return "\n\n".join(parts) or None
