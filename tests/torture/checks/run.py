"""What the run itself saw: nodes that died, clients that got stuck, replicas that differ."""

from torture.checks import where


def broken(history):
    """Nodes live, become ready, and agree; clients end."""
    for event in history.of["broken"]:
        yield f"{event['what']} at {event['t']:.3f}"


def fatal_producer(history):
    """No producer is given up by its library."""
    for event in history.of["fatal"]:
        yield f"{event['c']}: {event['error']} at {event['t']:.3f}"


def patience_unrewarded(history):
    """A producer without a timeout gets every record acknowledged."""
    for send in history.sends.values():
        if send.mode == "patient" and send.outcome != "acked":
            yield f"{send}, to {where(send.topic, send.part)}"


CHECKS = (broken, fatal_producer, patience_unrewarded)
