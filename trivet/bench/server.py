"""The server of `trivet bench`: `python -m trivet.bench.server module:registry CONNECTIONS`.

Prints its port, and serves until its standard input ends.
"""

import os
import sys
from functools import partial

import attrs
import trio

from trivet.cli import CommandError, load_registry
from trivet.limits import Limits
from trivet.registry import Registry
from trivet.server import serve


async def main(registry: Registry, connections: int) -> None:
    """Serve."""
    limits = attrs.evolve(Limits(), connections=connections)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, registry, port=0, limits=limits))
        print(server.port, flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
            while await parent.receive_some(1024):
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        found = load_registry(sys.argv[1])
    except CommandError as error:
        sys.exit(str(error))
    trio.run(main, found, int(sys.argv[2]))
