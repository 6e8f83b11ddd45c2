"""Measure, print each table as Markdown, and say which target is missed: ``python -m benchmarks [names] [--quick]``.

Everything is a ratio against a peer that is measured in the same run, in turns, so that whatever else the machine does
falls on both. Client and server are processes of their own. Exit status 1: a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from .measuring import Options
from .report import Section, markdown, write

TABLES = ("client", "short_runs", "imports", "waiting", "triggerer", "embedded")

Measure = Callable[[Options], list[Section]]


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"tables, default all: {', '.join(TABLES)}")
    parser.add_argument("--quick", action="store_true", help="a few seconds a table, without targets")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md and its charts")
    given = parser.parse_args()
    unknown = set(given.names) - set(TABLES)
    if unknown:
        parser.error(f"there is no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    missed = []
    for name in [one for one in TABLES if not given.names or one in given.names]:
        begun = time.monotonic()
        measure: Measure = import_module(f"benchmarks.{name}").measure
        sections = measure(Options(quick=given.quick))
        if given.quick:  # too short for a verdict
            sections = [replace(section, targets=[]) for section in sections]
        for section in sections:
            print(f"\n{markdown(section)}\n", flush=True)
            missed += [target for target in section.targets if not target.kept]
        if given.write:
            write(sections)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    for target in missed:
        print(target, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
