"""How a life is brought to its end, and what those are told whose work that cuts off."""

from typing import TYPE_CHECKING

import trio

from trivet.errors import PublicError
from trivet.runtime import answers
from trivet.runtime.lifecycle import Goal, Phase

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


def request(instance: "Instance", goal: Goal) -> None:
    """Take no new work, finish what had arrived, end. Within the grace, then by cancellation."""
    if instance.phase in (Phase.ASLEEP, Phase.GONE):
        return
    instance.lifecycle.aim(goal)
    if instance.phase is Phase.STARTING:
        return  # it ends once it has started
    if instance.phase is Phase.RUNNING:
        instance.lifecycle.move(Phase.DRAINING)
        if instance.made_schedules is not None:
            instance.made_schedules.stop()
        instance.inbox.nudge()
    assert instance.nursery is not None
    # The last part of the grace is for telling those whose work was cut off.
    seconds = grace(instance)
    telling = min(instance.host.limits.close_timeout, seconds / 2)
    scope = instance.nursery.cancel_scope
    scope.deadline = min(scope.deadline, trio.current_time() + seconds - telling)


def grace(instance: "Instance") -> float:
    """The seconds from the request to end to the end."""
    limit, own = instance.host.limits.shutdown_grace, instance.definition.options.shutdown_grace
    if own is None:
        return limit
    return min(own, limit) if instance.host.stopping else own


def restart(instance: "Instance") -> None:
    """End this life at once, without saving: the next one begins where the last commit was."""
    instance.lifecycle.aim(Goal.RESTART)
    if instance.phase is Phase.RUNNING:
        instance.lifecycle.move(Phase.DRAINING)
    if instance.nursery is not None:
        instance.nursery.cancel_scope.cancel()


def comes_back(instance: "Instance") -> bool:
    """Whether what arrives while it ends is for its next life."""
    return instance.lifecycle.goal in (Goal.SLEEP, Goal.RESTART) and not instance.host.stopping


def refusal(instance: "Instance") -> PublicError:
    """What is answered to work that this life does not take. NextLife where the next one will."""
    return answers.NextLife() if comes_back(instance) else answers.stopping()


def end_error(instance: "Instance") -> PublicError:
    """What is answered to work that this life has taken and not done."""
    if instance.start_error is not None:
        return instance.start_error
    if instance.lifecycle.goal is Goal.RESTART:
        return answers.save_failed() if instance.saver.failed else answers.stopping()
    return refusal(instance)


def cut_error(instance: "Instance", *, begun: bool) -> PublicError:
    """What is answered to work that this life was cut off from: whether it had begun, or was about to."""
    return end_error(instance) if not begun or instance.lifecycle.goal is Goal.RESTART else answers.cut_off()
