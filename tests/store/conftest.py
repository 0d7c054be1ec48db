from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from trivet.store import MemoryStore, Store
from trivet.store.sqlite import SQLiteStore, open_sqlite_store
from trivet.store.sqlite import file as file_module
from trivet.testing import FaultyStore

OpenStore: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def memory(_path: Path) -> AsyncGenerator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def faulty(_path: Path) -> AsyncGenerator[Store]:
    yield FaultyStore(MemoryStore(durable=True))


@asynccontextmanager
async def sqlite(path: Path) -> AsyncGenerator[Store]:
    async with open_sqlite_store(path) as store:
        yield store


@asynccontextmanager
async def sqlite_full(path: Path) -> AsyncGenerator[Store]:
    async with open_sqlite_store(path, synchronous="full", check="full") as store:
        yield store


def has_no_nowait(_descriptor: int) -> bool:
    return False


@asynccontextmanager
async def sqlite_far(path: Path) -> AsyncGenerator[Store]:
    """As where no read can be made on the event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_module, "has_nowait", has_no_nowait)
        async with open_sqlite_store(path) as store:
            yield store


@pytest.fixture(params=[memory, faulty, sqlite, sqlite_full, sqlite_far], ids=lambda param: param.__name__)
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    opened: OpenStore = request.param
    return opened


@pytest.fixture
async def store(open_store: OpenStore, tmp_path: Path) -> AsyncGenerator[Store]:
    """Each kind of store."""
    async with open_store(tmp_path) as opened:
        yield opened


@pytest.fixture
async def in_file(tmp_path: Path) -> AsyncGenerator[SQLiteStore]:
    """A store in a file of SQLite."""
    async with open_sqlite_store(tmp_path) as opened:
        yield opened
