"""The limit of open files, which is also the limit of open connections."""

import sys
from typing import Final

from trivet.runtime.logs import logger

# What a process has open besides the connections: its own files, listeners, the event loop.
_OTHERS: Final = 64


def raise_descriptor_limit(connections: int) -> None:
    """Raise the soft limit of open files to the hard one, and warn when that does not serve so many connections.

    Without effect on Windows, which has no such limit.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            hard = soft  # macOS reports an unlimited hard limit that it does not grant.
    if hard != resource.RLIM_INFINITY and hard < connections + _OTHERS:
        logger.warning(
            "at most %d files may be open, which is too few for %d connections: raise `ulimit -n` or lower"
            " Limits.connections",
            hard,
            connections,
        )
