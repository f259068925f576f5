"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import time


def wait_until(condition, deadline=30.0, what="condition", pause=0.05):
    """Calls `condition` until it returns something true, and returns that.

    Exceptions of `condition` count as "not yet"; the last one is shown when the deadline passes.
    """
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except Exception as e:  # noqa: BLE001 - whatever a client raises means "not yet"
            last = e
        if time.monotonic() > end:
            raise AssertionError(f"{what} not within {deadline} s; last: {last!r}")
        time.sleep(pause)
