"""A real certificate authority, real fronts behind a balancer, and the command line of a real certbot."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from cryptography import x509

from configstore.embedded import LOOPBACK, free_ports
from tests.harness.certificates import Authority
from tests.harness.waiting import wait_until

NAME = "mail.example.test"
HERE = Path(__file__).parents[2]


def program(name):
    """Return the path of an installed program."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found, f"{name} is not installed: tests/get-services"
    return found


def answers(port):
    """Tell whether something listens."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
        return True
    return False


class Pebble:
    """The authority. It finds every name on this host, and validates at one port, that of the balancer."""

    def __init__(self, folder, http_port):
        folder.mkdir()
        self.folder, self.port = folder, free_ports(1)[0]
        management, self.dns, manage_dns = free_ports(3)
        authority = Authority(folder)
        certificate, key = authority.issue("pebble")
        self.bundle = authority.cacert
        listen = {
            "listenAddress": f"{LOOPBACK}:{self.port}",
            "managementListenAddress": f"{LOOPBACK}:{management}",
        }
        ports = {"httpPort": http_port, "tlsPort": http_port, "ocspResponderURL": ""}
        (folder / "config.json").write_text(
            json.dumps({"pebble": {**listen, "certificate": str(certificate), "privateKey": str(key), **ports}})
        )
        self.log = folder / "log"
        self.directory = f"https://{LOOPBACK}:{self.port}/dir"
        where = ["-dns01", f"{LOOPBACK}:{self.dns}", "-management", f"{LOOPBACK}:{manage_dns}"]
        nothing_else = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
        self._dns_command = [program("pebble-challtestsrv"), "-defaultIPv4", LOOPBACK, *where, *nothing_else]

    def orders(self):
        """Return how many orders were made."""
        return self.log.read_text().count("/order-plz")

    def issued(self):
        """Return how many certificates were issued."""
        return self.log.read_text().count("Issued certificate serial")

    def __enter__(self):
        quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        command = [
            program("pebble"),
            "-config",
            str(self.folder / "config.json"),
            "-dnsserver",
            f"{LOOPBACK}:{self.dns}",
        ]
        with self.log.open("ab") as log:
            self._processes = [
                subprocess.Popen(each, stdout=log, stderr=log, env={**os.environ, **quick})
                for each in (self._dns_command, command)
            ]
        wait_until(lambda: answers(self.port), 20, what="Pebble to answer")
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.terminate()
            process.wait(90)


NGINX = """
user root;
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {host}:{http};
    {locations}
  }}
  include {folder}/with-tls/*.conf;
}}
"""
_CHALLENGES = "location /.well-known/acme-challenge/ {{ root {acme}; }}"
_TLS = """
server {{
  listen {host}:{https} ssl;
  ssl_certificate {certs}/live/mailu/fullchain.pem;
  ssl_certificate_key {certs}/live/mailu/privkey.pem;
}}
"""


class Front:
    """A front: nginx with one replica's certificates and webroot."""

    def __init__(self, folder, certs, acme):
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "with-tls").mkdir()
        self.folder = folder
        self.http, self.https = free_ports(2)
        where = {"folder": folder, "certs": certs, "acme": acme, "host": LOOPBACK}
        where |= {"http": self.http, "https": self.https}
        (folder / "nginx.conf").write_text(NGINX.format(locations=_CHALLENGES.format(acme=acme), **where))
        (folder / "tls").write_text(_TLS.format(**where))

    @property
    def reload(self):
        """The command that has nginx take the certificates anew, as Mailu's /config.py does."""
        script = (
            'cp "$1/tls" "$1/with-tls/tls.conf" && nginx -t -q -c "$1/nginx.conf" && kill -HUP "$(cat "$1/pid")"'
        )
        return ["sh", "-c", script, "-", str(self.folder)]

    def serial(self):
        """Return the serial of the certificate that a client is shown, None for none."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.https), 5) as plain:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=NAME) as secure:
                return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True)).serial_number
        return None

    def __enter__(self):
        self.process = subprocess.Popen([program("nginx"), "-c", str(self.folder / "nginx.conf")])
        wait_until(lambda: answers(self.http), 20, what="nginx to answer")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)


class Balancer:
    """Gives each connection to the next of some ports."""

    def __init__(self):
        self.ports = []
        self._turn = 0
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with self._listener, contextlib.suppress(OSError):
            while True:
                here = self._listener.accept()[0]
                there = socket.create_connection((LOOPBACK, self.ports[self._turn % len(self.ports)]))
                self._turn += 1
                threading.Thread(target=_join, args=(here, there), daemon=True).start()

    def close(self):
        """Serve no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def _join(here, there):
    with here, there:
        back = threading.Thread(target=_pass_on, args=(there, here), daemon=True)
        back.start()
        _pass_on(here, there)
        back.join()


def _pass_on(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def certbot(folder, pebble, *arguments):
    """Return a certbot command; its settings lie in the directory at which `seen_as` shows a replica's."""
    options = ["-n", "--config-dir", str(folder / "certs"), "--work-dir", str(folder / "work")]
    options += ["--logs-dir", str(folder / "logs"), "--server", pebble.directory]
    return [program("certbot"), *arguments, *options]


def seen_as(directory, common, command):
    """Return a command that sees a replica's directory where every container has it."""
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "-", str(directory), str(common), *command]
