"""Reads that need no thread, because the kernel has what they ask for in memory.

To hand a read to a thread and its result back costs five to ten times the read itself. So the event loop has a
connection of its own, whose file system (a VFS of SQLite) reads with RWF_NOWAIT (preadv2(2), Linux): what is in the
page cache is copied, and what is not raises BlockingIOError instead of waiting for a disk. That read is then made again
in a thread, as are those that turn out to be large. A loop that reads so never waits for a disk.
"""

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import apsw

from trivet.store.sqlite.statements import keep_plans, rows

P = ParamSpec("P")
T = TypeVar("T")

MOST_PAGES: Final = 64
"""Pages of 4 KiB that a read on the loop takes from the kernel: together less than 0.2 ms."""

# What SQLite itself keeps costs a read no page; this bounds how much there is of it.
_CACHE_KIB: Final = 4096

_names = itertools.count()


class TooLarge(Exception):
    """A read was about to take more pages than it may on the event loop."""


class NearReader:
    """Reads what is in memory already. For one thread, the event loop's.

    The descriptors that it opens must be closed after every other connection of this process to the same file: to
    close one drops all POSIX locks of the process on that file, SQLite's among them.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, in a thread, as this waits for it. Raises apsw.Error."""
        self.waits = True
        self._descriptors: list[int] = []
        self._pages = 0
        name = f"trivet-nowait-{next(_names)}"
        self._vfs = _VFS(name, self)
        self._connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=name)
        keep_plans(self._connection)
        rows(
            self._connection,
            f"PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{_CACHE_KIB};"
            "SELECT count(*) FROM sqlite_schema",
        )
        self.waits = False

    def read(self, query: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises OSError (mostly BlockingIOError), TooLarge or apsw.BusyError where a thread must do it."""
        self._pages = 0
        return query(self._connection, *args, **kwargs)

    def close(self) -> None:
        """Close the connection, not the descriptors."""
        self._connection.close()
        self._vfs.unregister()

    def close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def opened(self, path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        return descriptor

    def count_page(self) -> None:
        self._pages += 1
        if self._pages > MOST_PAGES:
            raise TooLarge


class _VFS(apsw.VFS):
    def __init__(self, name: str, reader: NearReader) -> None:
        super().__init__(name, "")
        self._reader = reader

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _File(name, flags, self._reader)


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], reader: NearReader) -> None:
        super().__init__("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert path is not None, "there are no temporary files: temp_store is memory"
        self._reader = reader
        self._descriptor = reader.opened(path)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        if self._reader.waits:
            return super().xRead(amount, offset)
        self._reader.count_page()
        # The platform is asked before a NearReader is made.
        buffer = bytearray(amount)
        count = os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT) if sys.platform == "linux" else 0
        if count < amount and os.fstat(self._descriptor).st_size > offset + count:
            # It has a part of it in memory; this is not the end of the file.
            raise BlockingIOError
        del buffer[count:]
        return bytes(buffer)


def has_nowait(descriptor: int) -> bool:
    """Whether the platform, and the file system of this open file, have such reads."""
    if sys.platform != "linux":
        return False
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        # EOPNOTSUPP, from tmpfs for instance.
        return False
    return True
