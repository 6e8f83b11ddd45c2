"""From what was measured to Markdown, and to the page that keeps it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from .measuring import ROOT, figure

PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Target:
    """A limit that the project sets itself.

    Attributes:
        what: that is measured.
        value: that was measured.
        limit: that is kept or missed.
        side: whether the value has to be ``at most`` or ``at least`` the limit.
    """

    what: str
    value: float
    limit: float
    side: Literal["at most", "at least"] = "at most"

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit if self.side == "at most" else self.value >= self.limit

    def __str__(self) -> str:
        return (
            f"{self.what}: {figure(self.value)}, {self.side} {figure(self.limit)}: {'kept' if self.kept else 'MISSED'}"
        )


@dataclass(frozen=True)
class Section:
    """One table and what belongs to it.

    Attributes:
        name: by which the command and the page know it.
        title: its heading.
        text: paragraphs before the table.
        columns, rows: the table.
        targets: what the project wants of these numbers.
        charts: SVG documents, by the name of their file.
        notes: paragraphs after the table, for example a profile.
    """

    name: str
    title: str
    text: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = ()
    charts: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def machine() -> str:
    """What matters of this machine, without its name."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} on {platform.machine()}"


def markdown(section: Section, day: date | None = None) -> str:
    """A section as it stands on the page."""
    parts = [f"## {section.title}", *section.text, table(section.columns, section.rows)]
    if section.targets:
        rows = [
            [
                target.what,
                f"{target.side} {figure(target.limit)}",
                figure(target.value),
                "yes" if target.kept else "**no**",
            ]
            for target in section.targets
        ]
        parts.append(table(["target", "limit", "measured", "kept"], rows))
    parts += section.notes
    parts += [f"![{_title(chart)}](images/{name}.svg)" for name, chart in section.charts.items()]
    parts.append(f"*Measured on {day or date.today()}: {machine()}.*")
    return "\n\n".join(parts)


def _title(chart: str) -> str:
    found = re.search(r"<title[^>]*>(.*?)</title>", chart, re.S)
    return found.group(1) if found else ""


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- measured: {name} -->", f"<!-- end: {name} -->"


def put(page: str, section: Section, day: date | None = None) -> str:
    """The page with a section in place of the one that had its name, or at its end."""
    begin, end = _marks(section.name)
    block = f"{begin}\n{markdown(section, day)}\n{end}"
    if begin not in page:
        return f"{page.rstrip()}\n\n{block}\n"
    before, rest = page.split(begin, 1)
    return before + block + rest.split(end, 1)[1]


def write(sections: Sequence[Section], page: Path = PAGE, images: Path = IMAGES) -> None:
    """Update the page and its charts."""
    images.mkdir(parents=True, exist_ok=True)
    text = page.read_text()
    for section in sections:
        text = put(text, section)
        for name, chart in section.charts.items():
            (images / f"{name}.svg").write_text(chart)
    page.write_text(text)
