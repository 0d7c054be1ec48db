"""`python -m tests.interop.driver_fixtures --port 6420` serves the fixtures until it is interrupted.

It prints the URL when it can be reached. `--log-level` is one of Python's (default: WARNING).
"""

import argparse
import logging
from functools import partial

import trio

import trivet

from .registry import registry


async def main(port: int) -> None:
    """Serve on that port of the loopback interface; 0 takes any free one."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trivet.serve, registry, port=port, handle_signals=True))
        print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.interop.driver_fixtures")
    parser.add_argument("--port", type=int, default=6420)
    parser.add_argument("--log-level", default="WARNING")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    trio.run(main, arguments.port)
