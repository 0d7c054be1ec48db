"""The floor in Python: `floor_server [FRAME_FILE OFFSET_OF_NUMBER CALL_SIZE | FRAME_SIZE]`.

Each connection asks for an upgrade, and its path says what it is. For every CALL_SIZE bytes from the controller, the
frame with the next number is sent to every subscriber. To a caller its bytes are sent back. `benchmarks/floor.c` does
the same.
"""

import select
import socket
import sys
from pathlib import Path

from trivet.bench.floor import NUMBER_WIDTH, FloorFanout
from trivet.bench.sockets import SWITCHED


def serve(frame: bytes, offset: int, call_size: int) -> None:
    """Serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    opening: dict[int, bytes] = {}
    sockets: dict[int, socket.socket] = {}
    subscribers: dict[int, socket.socket] = {}
    callers: set[int] = set()
    before, after = frame[:offset], frame[offset + 10 :]
    called = emitted = 0
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[sock.fileno()] = sock
                opening[sock.fileno()] = b""
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            if fd == sys.stdin.fileno():
                return
            try:
                data = sockets[fd].recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                epoll.unregister(fd)
                sockets.pop(fd).close()
                subscribers.pop(fd, None)
                callers.discard(fd)
            elif fd in callers:
                _send(sockets[fd], data)
            elif fd in opening:
                opening[fd] += data
                if opening[fd].endswith(b"\r\n\r\n"):
                    request = opening.pop(fd)
                    if request.startswith(b"GET /subscriber "):
                        subscribers[fd] = sockets[fd]
                    elif request.startswith(b"GET /caller "):
                        callers.add(fd)
                    sockets[fd].send(SWITCHED)
            else:
                called += len(data)
                while called >= call_size:
                    called -= call_size
                    _emit(b"%b%010d%b" % (before, emitted, after), subscribers)
                    emitted += 1


def _emit(frame: bytes, subscribers: dict[int, socket.socket]) -> None:
    for sock in subscribers.values():
        _send(sock, frame)


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    while sent < len(data):  # does not happen while the load keeps up
        select.select([], [sock], [])
        sent += sock.send(data[sent:])


if __name__ == "__main__":
    try:
        if len(sys.argv) == 1:
            serve(b"", 0, 1)
        elif len(sys.argv) == 2:
            client = FloorFanout(int(sys.argv[1]))
            frame = client.event_frame(0)
            serve(frame, frame.index(b"0" * NUMBER_WIDTH), len(client.call(0)))
        else:
            serve(Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3]))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the load has gone
