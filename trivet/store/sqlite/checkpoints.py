"""When the write-ahead log goes into the file.

SQLite does that at the end of a commit that finds a long log, which then waits for the disk, twice: 50 to 300 ms
(measured). Here another thread does it, with a connection of its own, while commits go on. They only ever have to wait
for the log to begin anew, which needs a moment in which all of it is in the file.
"""

import logging
import threading
from typing import Final

import apsw

from trivet.store.sqlite.file import WAL_LIMIT, OpenFile

EVERY_PAGES: Final = 1_000
"""Pages of log after which a checkpoint begins: SQLite's own number."""

_PAGE: Final = 4_096

_log = logging.getLogger("trivet.store")


class Checkpoints:
    """Of one file. `after_group` is for the writer's thread."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.wal_pages = 0
        self._began_at = 0
        self._running = False
        self._restart = False
        self._wanted = threading.Semaphore(0)
        self._ending = False
        file.writer.set_wal_hook(self._committed)
        self._thread = threading.Thread(target=self._run, name="trivet store: checkpoints", daemon=True)
        self._thread.start()

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self.wal_pages:
            self._began_at = 0
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def after_group(self) -> None:
        """Have a checkpoint made if it is time. Waits for the disk where the log is at its limit, and only then."""
        if self._running:
            return
        if self._restart:
            # The other thread has just done the most of it; with no commit in between, this does the rest.
            self._restart = False
            self._checkpoint(self._file.writer)
        elif self.wal_pages - self._began_at >= EVERY_PAGES:
            self._began_at = self.wal_pages
            self._running = True
            self._wanted.release()

    def finish(self) -> None:
        """End the thread. For any thread."""
        self._ending = True
        self._wanted.release()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._ending:
                return
            pages = self._checkpoint(self._file.checkpointer)
            self._restart = pages * _PAGE >= WAL_LIMIT
            self._running = False

    def _checkpoint(self, connection: apsw.Connection) -> int:
        """The log's length in pages."""
        try:
            pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            # Nothing is lost: it stays in the log, and the next one tries again.
            _log.warning("%s: the write-ahead log could not be put into the file: %s", self._file.path, error)
            return 0
        return pages
