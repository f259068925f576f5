"""What must never be seen, one function for each; pure, from a history to anomalies.

Names are those of Jepsen's Kafka checker where it has one.
"""

import dataclasses

# Anomalies of one kind that are worth showing.
SHOWN = 3


@dataclasses.dataclass
class Anomaly:
    """What was seen, in the fewest words that prove it."""

    name: str
    text: str

    def __str__(self):
        return f"{self.name}: {self.text}"


def where(topic, part, off=None):
    return f"{topic}-{part}" + ("" if off is None else f" at {off}")


def check_all(history):
    """Runs every check."""
    from torture.checks import groups, records, run, topics, transactions
    found = []
    for module in (records, topics, groups, transactions, run):
        for check in module.CHECKS:
            found.extend(Anomaly(check.__name__.replace("_", "-"), t) for t in check(history))
    return found
