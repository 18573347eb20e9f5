"""A watch followed by a thread."""

import threading

from configstore.errors import ConfigstoreError


class Seen:
    """Iterates a watch in a thread and keeps what it brought."""

    def __init__(self, watch):
        self.watch = watch
        self.batches = []
        self.error = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            for batch in self.watch:
                self.batches.append(batch)
        except ConfigstoreError as error:
            self.error = error

    @property
    def ended(self):
        return not self._thread.is_alive()

    @property
    def events(self):
        return [event for batch in list(self.batches) for event in batch.events]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.watch.close()
        self._thread.join(10)
        assert self.ended
