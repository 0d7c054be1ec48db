"""The client with trivet's own server, over a real socket."""

import ssl
from functools import partial
from typing import get_args

import pytest
import trio

from tests.conftest import Certificate
from tests.test_local import ChatRoom, Message, Params, registry
from trivet.client import open_client
from trivet.errors import ActorError, ConnectionEnded
from trivet.protocol.codec import Encoding
from trivet.server.serving import serve


@pytest.mark.parametrize("encoding", get_args(Encoding))
async def test_everything_works_over_a_socket(encoding: Encoding) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, registry, port=0))
        with trio.fail_after(30):
            async with open_client(f"http://127.0.0.1:{server.port}", encoding=encoding) as client:
                handle = client.get_or_create(ChatRoom, ["a,b", ""], params=Params("bob"))
                assert await handle.call(ChatRoom.send_message, "hi") == Message("bob", "hi")
                async with handle.connect() as room:
                    got: list[Message] = []
                    room.on(ChatRoom.message_sent, got.append)
                    for n in range(50):
                        await room.call(ChatRoom.send_message, str(n))
                    assert [message.text for message in got] == [str(n) for n in range(50)]
                    with pytest.raises(ConnectionEnded, match="kicked"):
                        await room.call(ChatRoom.kick)
                response = await handle.fetch("/x?y=1", method="POST", body="b")
                assert (response.status, response.text()) == (201, "POST /x {'y': '1'} b")
                async with handle.websocket("echo") as websocket:
                    await websocket.send(b"bytes")
                    assert await websocket.receive() == b"bytes"
                with pytest.raises(ActorError, match="banned"):
                    async with handle.connect(params={"userId": "mallory"}):
                        pass
                with pytest.raises(ActorError, match="not_found"):
                    await client.get(ChatRoom, "missing").call(ChatRoom.history)
        nursery.cancel_scope.cancel()


async def test_everything_works_over_tls(certificate: Certificate) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain)
    trust = ssl.create_default_context(cafile=str(certificate.authority))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, registry, port=0, ssl_context=context))
        with trio.fail_after(30):
            async with open_client(server.url, tls=trust) as client:
                handle = client.get_or_create(ChatRoom, "tls", params=Params("bob"))
                assert await handle.call(ChatRoom.send_message, "hi") == Message("bob", "hi")
                async with handle.connect() as room:
                    got: list[Message] = []
                    room.on(ChatRoom.message_sent, got.append)
                    await room.call(ChatRoom.send_message, "x" * 50_000)
                    assert [len(message.text) for message in got] == [50_000]
        nursery.cancel_scope.cancel()
