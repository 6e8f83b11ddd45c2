"""The files that a page of the documentation shows: each block of Python that begins with its file's name."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"```python\n# (?P<name>\w+\.py)\n(?P<text>.*?)```", re.DOTALL)


def files_of(page: str, heading: str = "") -> dict[str, str]:
    """The files of a section by their names, the part of the page before its first heading if none is given."""
    for section in (_DOCS / page).read_text().split("\n## "):
        title = section.splitlines()[0]
        if title == heading or (not heading and title.startswith("# ")):
            return {found["name"]: found["text"] for found in _BLOCK.finditer(section)}
    raise LookupError(f"{page} has no section {heading!r}")
