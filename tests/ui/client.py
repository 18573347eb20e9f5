"""A client of the page as a program sees it: one request, with just the headers that are given."""

import http.client
import re
import urllib.parse
from dataclasses import dataclass, field

from tests.ui.cluster import Ui


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    def forms(self) -> dict[str, dict[str, str]]:
        """Return the fields of each form that changes something, by where it is sent."""
        found = {}
        for form in re.findall(r'<form method="post" action="([^"]+)"(.*?)</form>', self.text, re.DOTALL):
            fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form[1])
            found[form[0]] = dict(fields)
        return found


@dataclass
class Client:
    """One that knows a page's address, and, once it has come in by the token, its cookie."""

    ui: Ui
    cookie: str = ""
    seen: list[Answer] = field(default_factory=list)

    def enter(self) -> "Client":
        """Come in by the address that was printed."""
        answer = self.ask(self.ui.url.removeprefix(self.ui.origin))
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def ask(
        self, path: str, fields: dict[str, str] | None = None, *, method: str = "", **headers: str | None
    ) -> Answer:
        """Send a request: a GET, or with `fields` a form as our own page sends it; None leaves a header out."""
        own: dict[str, str | None] = {"Host": f"127.0.0.1:{self.ui.port}", "Cookie": self.cookie or None}
        body = None
        if fields is not None:
            body = urllib.parse.urlencode(fields)
            own |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.ui.origin}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.ui.port, timeout=30)
        try:
            connection.putrequest(method or ("POST" if body is not None else "GET"), path, skip_host=True)
            for name, value in own.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body.encode() if body is not None else None)
            found = connection.getresponse()
            named = {name.lower(): value for name, value in found.getheaders()}
            answer = Answer(found.status, named, found.read().decode())
        finally:
            connection.close()
        self.seen.append(answer)
        return answer
