"""Runs histories, and counts what was executed."""

from collections import Counter

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

STEPS: Counter[str] = Counter()
"""What was executed since the start: histories and the steps in them."""


class Counted(RuleBasedStateMachine):
    """A state machine whose steps are counted."""

    def __init__(self):
        super().__init__()
        STEPS["histories"] += 1

    def check_invariants(self, *how, **more):
        STEPS["steps"] += 1
        super().check_invariants(*how, **more)


def run_histories(machine, examples, steps, number=None, **how):
    """Try so many histories of at most so many steps. Raises what the first failing one raised.

    number: of a fixed row of histories, for what shall take the same time each time.
    """
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
        **how,
    )
    histories = type(machine.__name__, (machine,), {})
    run_state_machine_as_test(histories if number is None else seed(number)(histories), settings=profile)
