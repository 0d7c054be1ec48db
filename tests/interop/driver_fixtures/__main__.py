"""`python -m tests.interop.driver_fixtures --port 6420` serves the fixtures until it is interrupted.

It prints the URL when it can be reached. With `--data FILE` the actors are kept in that file, and outlive the process;
otherwise in memory. `--log-level` is one of Python's (default: WARNING).
"""

import argparse
import logging
from contextlib import AsyncExitStack
from functools import partial

import trio

import trivet

from .registry import registry


async def main(port: int, data: str | None) -> None:
    """Serve on that port of the loopback interface; 0 takes any free one."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        store = None if data is None else await stack.enter_async_context(trivet.open_sqlite_store(data))
        server = await nursery.start(partial(trivet.serve, registry, port=port, store=store, handle_signals=True))
        print(server.url, flush=True)


def in_the_suites_words(record: logging.LogRecord) -> bool:
    """The suite looks into the log for what became of background work, in RivetKit's words."""
    message = record.getMessage()
    if "background work" in message and " failed" in message:
        record.msg, record.args = f"{message}: actor wait_until promise rejected", ()
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.interop.driver_fixtures")
    parser.add_argument("--port", type=int, default=6420)
    parser.add_argument("--data", metavar="FILE")
    parser.add_argument("--log-level", default="WARNING")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(in_the_suites_words)
    trio.run(main, arguments.port, arguments.data)
