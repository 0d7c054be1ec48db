"""Sockets: listeners, HTTP, WebSocket, and the ways from them to actors."""

from trivet.server.serving import DEFAULT_PORT, Server, ServerStatistics, serve, serve_stream

__all__ = ["DEFAULT_PORT", "Server", "ServerStatistics", "serve", "serve_stream"]
