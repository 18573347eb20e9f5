"""Starts the local watch of a mapping: inotify, or polling if that is configured or inotify is missing."""

import errno
import logging
from collections.abc import Callable

from configstore.errors import RefusedError
from configstore.mapping_settings import WatchMode
from sidecar.local.inotify import InotifyWatch
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.polling import POLL_INTERVAL, PollWatch
from sidecar.local.watch import LocalWatch

log = logging.getLogger(__name__)


def start_watch(mode: WatchMode, root: MirroredDirectory, wake: Callable[[], None]) -> LocalWatch:
    """Return a running watch. Raises RefusedError if inotify is configured and not available."""
    if mode is WatchMode.POLL:
        return PollWatch(root, wake)
    try:
        return InotifyWatch(wake)
    except OSError as error:
        if mode is WatchMode.INOTIFY:
            raise RefusedError(
                f'{root.path}: inotify is not to be had: {error.strerror}; set watch = "poll"'
            ) from error
        log.warning("inotify is not to be had; polling", extra={"path": root.path, "reason": error.strerror})
        mend = "raise fs.inotify.max_user_instances" if error.errno == errno.EMFILE else 'or set watch = "poll"'
        limitation = f"polled every {POLL_INTERVAL:g} s, since inotify is not to be had: {error.strerror}: {mend}"
        return PollWatch(root, wake, limitation=limitation)
