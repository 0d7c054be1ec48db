"""Actors inside a Trio program that does something else: no server, no socket, no port.

    python examples/embedded.py

A program that reads a sensor hosts an actor, feeds it from the task that reads, and has other tasks listen.
"""

from collections.abc import AsyncIterator

import attrs
import trio

import trivet
from trivet import Actor, Event, Registry, action


@attrs.frozen
class Reading:
    number: int
    celsius: float


@attrs.define
class Thermometer:
    count: int = 0
    highest: float | None = None


class Station(Actor[Thermometer]):
    reading_taken = Event(Reading)
    record_broken = Event(float)

    @action
    def record(self, celsius: float) -> Reading:
        self.state.count += 1
        reading = Reading(self.state.count, celsius)
        self.broadcast(self.reading_taken, reading)
        if self.state.highest is None or celsius > self.state.highest:
            self.state.highest = celsius
            self.broadcast(self.record_broken, celsius)
        return reading

    @action(readonly=True)
    def summarise(self) -> str:
        return f"{self.state.count} readings, at most {self.state.highest} °C" if self.state.count else "no readings"


registry = Registry(Station)


# -- the program as it was before -------------------------------------------------------------------------------------


async def read_sensor() -> AsyncIterator[float]:
    for celsius in (18.5, 19.0, 21.5, 20.0, 23.0):
        yield celsius
        await trio.sleep(0.1)


# -- and what an actor adds -------------------------------------------------------------------------------------------


async def feed(station: trivet.Handle[Station]) -> None:
    async for celsius in read_sensor():
        await station.call(Station.record, celsius)


async def warn(room: trivet.Connection[Station]) -> None:
    async with room.events(Station.reading_taken) as readings:
        async for reading in readings:
            if reading.celsius > 22:
                print(f"  it is getting hot: {reading.celsius} °C")
                return


async def main() -> None:
    async with trivet.open_local(registry) as client:  # actors live in this task tree, and end with it
        station = client.get_or_create(Station, "roof")
        async with station.connect() as room:
            room.on(Station.reading_taken, lambda reading: print(f"reading {reading.number}: {reading.celsius} °C"))
            room.on(Station.record_broken, lambda celsius: print(f"  a new record: {celsius} °C"))
            summary = await room.call(Station.summarise)  # the answer says that the listeners are in force
            print(f"before: {summary}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed, station)
                nursery.start_soon(warn, room)
            summary = await room.call(Station.summarise)  # and an answer comes after every event before it
            print(f"after: {summary}")


if __name__ == "__main__":
    trio.run(main)
