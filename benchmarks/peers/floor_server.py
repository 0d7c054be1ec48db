"""The floor in Python: `floor_server FRAME_FILE OFFSET_OF_NUMBER CALL_SIZE`.

Each connection asks for an upgrade, and its path says what it is. For every CALL_SIZE bytes from the controller, the
frame with the next number is sent to every subscriber. `benchmarks/floor.c` does the same.
"""

import select
import socket
import sys
from pathlib import Path

_ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


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
            elif fd in opening:
                opening[fd] += data
                if opening[fd].endswith(b"\r\n\r\n"):
                    if opening.pop(fd).startswith(b"GET /subscriber "):
                        subscribers[fd] = sockets[fd]
                    sockets[fd].send(_ANSWER)
            else:
                called += len(data)
                while called >= call_size:
                    called -= call_size
                    _emit(b"%b%010d%b" % (before, emitted, after), subscribers)
                    emitted += 1


def _emit(frame: bytes, subscribers: dict[int, socket.socket]) -> None:
    size = len(frame)
    for sock in subscribers.values():
        try:
            sent = sock.send(frame)
        except BlockingIOError:
            sent = 0
        while sent < size:  # does not happen while the load keeps up
            select.select([], [sock], [])
            sent += sock.send(frame[sent:])


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3]))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the load has gone
