"""A program that commits until it is killed: python -m tests.store.committing DIRECTORY SYNCHRONOUS

Each of its actors commits the numbers 1, 2, 3, ... into its state, a connection, a schedule and its alarm at once, and
prints each number that was acknowledged. Some states are large, so that the log goes into the file now and then.
"""

import json
import os
import sys
from typing import cast

import trio

from trivet.store import ActorRow, Changes
from trivet.store.sqlite import SQLiteStore, open_sqlite_store
from trivet.store.sqlite.file import Synchronous

ACTORS = 8


async def commit_numbers(store: SQLiteStore, actor_id: str) -> None:
    stored = await store.load(actor_id)
    if stored is None:
        await store.create(ActorRow(actor_id, "default", "room", (actor_id,), 1.0), Changes())
        generation, number = 1, 0
    else:
        generation, number = stored.generation + 1, json.loads(stored.state or b'{"number": 0}')["number"]
    while True:
        number += 1
        state = {"number": number, "padding": "x" * (300_000 if number % 8 == 0 else 100)}
        text = str(number).encode()
        await store.commit(
            actor_id, generation, Changes(json.dumps(state).encode(), 1, {"c": text}, {"s": text}, float(number))
        )
        os.write(1, f"{actor_id} {number}\n".encode())


async def main(directory: str, synchronous: Synchronous) -> None:
    async with open_sqlite_store(directory, synchronous=synchronous) as store, trio.open_nursery() as nursery:
        for number in range(ACTORS):
            nursery.start_soon(commit_numbers, store, f"actor-{number}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], cast("Synchronous", sys.argv[2]))
