"""Counters and spans that cost nothing where nobody listens, and need no dependency.

``subscribe`` a function to count calls, retries, ambiguous submits and ends of waits in whatever
metrics system there is. Spans are made through OpenTelemetry where the process has already
imported it; this module never imports it by itself.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

Counter = Literal["calls", "retries", "ambiguous_submits", "waits"]
Listener = Callable[[Counter, Mapping[str, str]], None]

logger = logging.getLogger("orchestration_integrations.telemetry")
_listeners: list[Listener] = []


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have ``listener(counter, attributes)`` called at each count; it must be quick; what it raises is logged.

    Counters and their attributes: ``calls`` (operation, outcome), ``retries`` (operation),
    ``ambiguous_submits`` (operation), ``waits`` (outcome).

    Returns:
        A function that ends the subscription; it may be called twice.
    """
    _listeners.append(listener)

    def unsubscribe() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return unsubscribe


def count(counter: Counter, **attributes: str) -> None:
    """Tell the listeners."""
    for listener in tuple(_listeners):
        try:
            listener(counter, attributes)
        except Exception:
            # What is counted has happened: a listener must not make its caller lose it.
            logger.exception("a listener failed on %s", counter)


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """An OpenTelemetry span around a procedure, where the process uses OpenTelemetry; else nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield
        return
    known = {f"orchestration.{key}": value for key, value in attributes.items() if value is not None}
    tracer = trace.get_tracer("orchestration_integrations")
    with tracer.start_as_current_span(f"orchestration {name}", attributes=known):
        yield
