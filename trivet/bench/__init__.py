"""Measuring servers: load generators that are processes of their own, without an event loop, on Linux.

`trivet bench` uses them on a user's own actor; the project's `benchmarks/` use them on trivet and its peers.
"""
