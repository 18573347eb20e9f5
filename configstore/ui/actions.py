"""The changes that `--write` allows: a page that shows what would be done, and the request that does it.

The confirmation sends back everything that the proposal was made from. The proposal is made again from the store,
and when a single field differs, the store has changed meanwhile and nothing is done. Called by `serving`.
"""

import hmac
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from configstore.cli.session import say
from configstore.errors import ConfigstoreError, ConflictError, NotThereError, StoreUnavailableError
from configstore.model.path import PathError
from configstore.model.record import RecordError
from configstore.store.tree import Tree
from configstore.ui import proposals
from configstore.ui.pages import Pages
from configstore.ui.proposals import Proposal


class Actions:
    """The changes by name, such as `restore`."""

    def __init__(self, tree: Tree, pages: Pages, *, form: str, by: str, write: bool) -> None:
        """`form`: the secret that a form must carry. by: the person who uses the page."""
        self._pages = pages
        self._form = form
        self._write = write
        self._proposals: dict[str, Callable[[Mapping[str, str]], Proposal]] = {
            "restore": partial(proposals.restore, tree),
            "resolve": partial(proposals.resolve, tree),
            "resume": partial(proposals.resume, tree, by=by),
            "break": partial(proposals.break_lease_of, tree),
        }

    def confirm(self, request: Request) -> Response:
        """Show what would be done, with the form that requests it; changes nothing."""
        if not self._write:
            return self._pages.refuse(403, "this page only reads: `configstore ui --write` may change something")
        name = request.path_params["name"]
        proposal = self._propose(name, dict(request.query_params))
        return self._pages.show("confirm", name=name, proposal=proposal)

    async def do(self, request: Request) -> Response:
        """Do what was confirmed, or return a page that says why not."""
        body = await request.body()
        return await anyio.to_thread.run_sync(self._do, request.path_params["name"], body)

    def _do(self, name: str, body: bytes) -> Response:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        given = {key: found[0] for key, found in fields.items()}
        if not self._write or not hmac.compare_digest(given.pop("form", "").encode(), self._form.encode()):
            return self._pages.refuse(403, "this form is not one of this page's; nothing was changed")
        try:
            proposal = self._propose(name, given)
            if proposal.fields != given:
                raise ConflictError("what you confirmed has changed meanwhile; nothing was changed; look again")
            done = proposal.act()
        except NotThereError as error:
            return self._pages.refuse(409, f"{error}; nothing was changed")
        except StoreUnavailableError as error:
            return self._pages.refuse(503, f"the store did not answer in time: {error}")
        except (ConfigstoreError, PathError, RecordError) as error:
            return self._pages.refuse(409, str(error))
        say(f"ui: {done}")
        return self._pages.show("done", said=done, back=proposal.back)

    def _propose(self, name: str, given: Mapping[str, str]) -> Proposal:
        propose = self._proposals.get(name)
        if propose is None:
            raise NotThereError(f"{name}: there is no such change")
        return propose(given)
