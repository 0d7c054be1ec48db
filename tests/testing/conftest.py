"""The fixtures of trivet's pytest plugin, also where the plugin is not installed as an entry point."""

from trivet.testing.plugin import pytest_itemcollected, world

__all__ = ["pytest_itemcollected", "world"]
