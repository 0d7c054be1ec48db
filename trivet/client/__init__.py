"""The client: handles of actors, stateless calls, and connections with events."""

from trivet.client.api import Client, open_client
from trivet.client.connection import Connection, Status
from trivet.client.ending import Closed
from trivet.client.handle import Handle
from trivet.client.listeners import EventStream

__all__ = ["Client", "Closed", "Connection", "EventStream", "Handle", "Status", "open_client"]
