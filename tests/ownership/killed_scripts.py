"""Runs the example scripts in processes that are killed at random moments, then once more to their end.

A program of its own, so that it can fork quickly and safely: one JSON case per line comes in, one JSON result per
line goes out. The scripts themselves run, from their files.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import runpy
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orchestration_integrations.run_store  # noqa: F401
from orchestration_integrations import OrchestrationHttpHook


def run_script(case: dict[str, Any]) -> dict[str, Any]:
    """The script, as a command would run it."""
    os.environ["ORCHESTRATION_URL"] = case["url"]
    main = runpy.run_path(case["script"])["main"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([case["order"], str(case["amount"]), "--store", case["store"]])
    return {"code": code, "said": said.getvalue()}


def forked(case: dict[str, Any], kill_after: float | None) -> dict[str, Any]:
    """The script in a process of its own, killed after so many seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result: dict[str, Any] = {}
        try:
            os.close(reading)
            random.seed()
            result = run_script(case)
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
    """One case: killed some times, then run to its end."""
    case = json.loads(line)
    before = [forked(case, seconds) for seconds in case["kill_after"]]
    last = forked(case, None)
    sys.stdout.write(json.dumps({"order": case["order"], "before": before, "last": last}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    OrchestrationHttpHook(base_url="http://127.0.0.1").close()  # imports what hooks need, once, before the forks
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(play, sys.stdin.read().splitlines()))
