"""What the delivery contract promises, rule by rule, and the error that says which of them is broken."""

from typing import Final

RULES: Final = {
    "order": "a connection sees its events in the order in which the actor emitted them",
    "once": "each at most once",
    "stray": "and none that was not meant for it",
    "cause": "the response to an action comes after every event that the action emitted before it returned",
    "sync": "and sync() returns after every event that the actor emitted before it was called",
    "subscribe": "a subscription is in force before any later message of the same connection is handled",
    "unsubscribed": "and ended before any later message once it was given up",
    "lost": "while a connection lives nothing that it should see is left out without its being told",
    "gap": "a connection whose session was lost is told so before the events of the next",
    "on_disconnect": "runs once for each connection that was admitted and has left",
    "answers": "each call is answered once",
    "start order": "calls of one connection start in the order of sending",
    "turns": "serial actions and hooks of one actor run one at a time",
}
"""What is verified, by the name that a Violation has for it."""


class Violation(AssertionError):
    """The delivery contract does not hold. `rule` is a name of `RULES`; `moment` orders violations in time."""

    def __init__(self, rule: str, message: str, moment: int) -> None:
        super().__init__(f"{rule}: {message}\n({RULES[rule]})")
        self.rule = rule
        self.moment = moment
