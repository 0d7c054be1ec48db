"""The actors of RivetKit's driver test suite, written as a user of trivet would write them.

RivetKit's own suite is run against this server to learn whether trivet behaves as its clients expect. Start it with
`python -m tests.interop.driver_fixtures --port 6420`; actor, action and event names are those the suite uses.
"""
