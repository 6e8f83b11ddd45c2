"""Play many histories and count what happened: ``python -m tests.simulation.soak --count 10000
[--owners | --checkpoints | --shared]``."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial

from .checkpoints import run_checkpoint_history
from .histories import run_history
from .owners import run_owner_history
from .shared import run_shared_history


def _play_history(seed: int) -> Counter[str]:
    return run_history(seed).counts


PLAYS: dict[str, Callable[[int], Counter[str]]] = {
    "hook": _play_history,
    "owners": run_owner_history,
    "checkpoints": run_checkpoint_history,
    "shared": run_shared_history,
}


def _play(seeds: range, what: str) -> tuple[Counter[str], list[tuple[int, str]]]:
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        try:
            counts.update(PLAYS[what](seed))
        except Exception:
            failures.append((seed, traceback.format_exc(limit=-3)))
    return counts, failures


def main(argv: list[str] | None = None) -> int:
    """Play histories in as many processes as there are cores; print counts; 1 if any broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one history only")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    kinds = parser.add_mutually_exclusive_group()
    for kind, told in (
        ("owners", "histories of owners of a run"),
        ("checkpoints", "histories of checkpoints"),
        ("shared", "histories of waits that share a poll"),
    ):
        kinds.add_argument(f"--{kind}", dest="what", action="store_const", const=kind, default="hook", help=told)
    options = parser.parse_args(argv)
    if options.seed is not None:
        print(PLAYS[options.what](options.seed))
        return 0
    begun = time.monotonic()
    size = 50
    last = options.first + options.count
    chunks = [range(at, min(at + size, last)) for at in range(options.first, last, size)]
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    with multiprocessing.Pool(options.processes) as pool:
        for number, (some, failed) in enumerate(
            pool.imap_unordered(partial(_play, what=options.what), chunks), start=1
        ):
            counts.update(some)
            failures += failed
            if sys.stdout.isatty():
                print(f"\r{number * size} of {options.count}", end="", flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:8}  {name}")
    for seed, text in failures[:5]:
        print(f"\nseed {seed}\n{text}")
    took = time.monotonic() - begun
    print(f"\n{options.count} histories in {took:.0f} s, {len(failures)} broke a promise")
    if failures:
        print("seeds:", *sorted(seed for seed, _ in failures[:40]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
