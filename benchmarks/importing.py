"""An interpreter that has loaded a framework and imports more in children, as Airflow's DAG processor does.

``python -m benchmarks.importing "<what is loaded first>"``. It needs the standard library alone.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

from .measuring import obey


def timed(statement: str) -> dict[str, float]:
    """Seconds of CPU and of the clock that a statement takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    exec(statement, {"__name__": "timed"})
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def forked(statement: str) -> dict[str, float]:
    """The same in a child, so that nothing stays. RuntimeError: it does not run."""
    gc.collect()
    gc.freeze()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        try:
            os.write(writing, json.dumps(timed(statement)).encode())
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"{statement!r} does not run")
    return json.loads(said)  # type: ignore[no-any-return]


def main() -> None:
    """Obey lines."""
    loaded = timed(sys.argv[1])

    def orders(do: str, given: dict[str, Any]) -> Any:
        return loaded if do == "loaded" else forked(given["statement"])

    obey(orders)


if __name__ == "__main__":
    main()
