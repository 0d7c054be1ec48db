"""A chat room in the browser: `trivet demo`."""

from trivet.demo.page import load_page
from trivet.demo.room import ChatRoom, registry
from trivet.demo.terminal import show_flow

__all__ = ["ChatRoom", "load_page", "registry", "show_flow"]
