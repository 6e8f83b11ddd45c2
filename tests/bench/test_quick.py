"""Each table of the benchmarks can be measured: run by ``make bench-smoke`` alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import TABLES
from benchmarks.measuring import Options
from benchmarks.report import write


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_measured_and_written(name: str, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n")
    sections = import_module(f"benchmarks.{name}").measure(Options(quick=True))
    write(sections, page, tmp_path)
    for section in sections:
        assert section.rows
        assert all(len(row) == len(section.columns) for row in section.rows)
        assert section.targets
        assert f"## {section.title}" in page.read_text()
        for chart in section.charts:
            ElementTree.fromstring((tmp_path / f"{chart}.svg").read_text())
