"""Measurements of trivet over real sockets, beside the least that the same work can cost."""
