"""One process at a time."""

import os
import sys
from pathlib import Path

from trivet.store.sqlite.errors import StoreInUse, StoreReadOnly

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        # Far behind the content, which stays readable: Windows keeps others from reading what is locked.
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        # flock, not lockf: that one does not keep the same process from opening the file a second time.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """A lock that ends with its process, however that ends. Its file stays: removing it would be a race.

    SQLite's own exclusive mode would keep out readers as well: the store's own, and a person with a shell.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises StoreInUse, naming the process that has it, and StoreReadOnly."""
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreReadOnly(
                f"{path} cannot be made or written to; check the owner and mode of its directory ({error.strerror})"
            ) from error
        try:
            _take(self.descriptor)
        except OSError as error:
            owner = os.pread(self.descriptor, 32, 0).decode("ascii", "replace").strip() if hasattr(os, "pread") else ""
            os.close(self.descriptor)
            raise StoreInUse(
                f"process {owner or 'unknown'} has {path.parent} open; only one can: end it, or use another directory"
            ) from error
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        os.write(self.descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self.descriptor)
