"""Runs cases in which a process that starts and waits is killed, and another goes on with the same key.

A program of its own, so that it can fork quickly and safely: one JSON case per line comes in, one JSON
result per line goes out.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import tenacity  # noqa: F401  (this and the next: loaded before forking, not anew in each child)

from orchestration_integrations import AmbiguousRunError, OrchestrationHttpHook
from orchestration_integrations.http_hook import connections, plans, transport  # noqa: F401


def attempt(case: dict[str, Any], first: bool) -> dict[str, Any]:
    """One attempt, as a task of a scheduler would make it."""
    chosen = None
    if case["store"] and os.path.exists(case["store"]):
        with open(case["store"], encoding="utf-8") as file:
            chosen = file.read() or None

    def store(instance_id: str) -> None:
        if case["store"]:
            with open(case["store"] + ".new", "w", encoding="utf-8") as file:
                file.write(instance_id)
            os.replace(case["store"] + ".new", case["store"])

    with OrchestrationHttpHook(base_url=case["url"]) as hook:
        try:
            instance = hook.start(
                case["workflow"],
                run_key=case["key"],
                first_attempt=first,
                since=datetime.fromtimestamp(case["since"], timezone.utc),
                chosen=chosen,
                on_chosen=store,
                timeout=case["timeout"],
            )
        except AmbiguousRunError as error:
            return {"ambiguous": list(error.candidates), "error": str(error)}
        state = hook.wait(instance.id, timeout=60, poll_interval=0.5).instance.state
        return {"instance": instance.id, "state": state}


def forked(case: dict[str, Any], first: bool, kill_after: float | None) -> dict[str, Any]:
    """The attempt in a process of its own, killed after so many seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result: dict[str, Any] = {}
        try:
            os.close(reading)
            random.seed()
            result = attempt(case, first)
        except BaseException as error:
            result = {"error": repr(error)}
        finally:
            with os.fdopen(writing, "w") as file:
                json.dump(result, file)
            os._exit(0)
    os.close(writing)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return dict(json.loads(text)) if text else {"killed": True}


def play(line: str) -> None:
    """One case: killed once, then run to its end."""
    case = json.loads(line)
    killed = forked(case, True, case["kill_after"])
    again = forked(case, False, None)
    sys.stdout.write(json.dumps({"key": case["key"], "first": killed, "again": again}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    OrchestrationHttpHook(base_url="http://127.0.0.1").close()  # imports what hooks need, once, before the forks
    with ThreadPoolExecutor(25) as pool:
        list(pool.map(play, sys.stdin.read().splitlines()))
