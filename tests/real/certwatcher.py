"""What Mailu's front does about certificates that others make: it polls, and takes both files when one changed.

Source: core/nginx/certwatcher.py of Mailu 1.8 and newer (watchdog's polling observer on the folders of both names;
a file that was created, moved or deleted runs /config.py, one that was modified reloads) and core/nginx/config.py
(which serves both files, or none).
"""

from watchdog.events import FileModifiedEvent, FileSystemEventHandler
from watchdog.observers.polling import PollingObserver


class CertWatcher(FileSystemEventHandler):
    """One front's watcher. served: the pair that nginx was given last, None for no TLS."""

    def __init__(self, cert, key):
        self.cert, self.key = cert, key
        self.served = None
        self.configured = 0
        self.config()
        self._observer = PollingObserver(timeout=0.2)  # Mailu's own waits a second
        for folder in {cert.parent, key.parent}:
            self._observer.schedule(self, str(folder))
        self._observer.start()

    def on_any_event(self, event):
        if event.is_directory or not {event.src_path, event.dest_path} & {str(self.cert), str(self.key)}:
            return
        if isinstance(event, FileModifiedEvent):
            self.served = self.served and self.pair()
        elif event.event_type in {"created", "moved", "deleted"}:
            self.config()

    def config(self):
        """Stand in for /config.py."""
        self.configured += 1
        self.served = self.pair()

    def pair(self):
        try:
            return self.cert.read_bytes(), self.key.read_bytes()
        except FileNotFoundError:
            return None

    def stop(self):
        self._observer.stop()
        self._observer.join()
