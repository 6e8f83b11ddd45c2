"""How measured numbers become a page and charts."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report, svg
from benchmarks.measuring import Pair, Spread, figure, percentile

DAY = date(2026, 11, 26)
SVG = "{http://www.w3.org/2000/svg}"


def section(name: str = "calls", cell: str = "1.00") -> report.Section:
    chart = svg.bars("CPU <of> a call", {"ours": Spread(1.1, 1.0, 1.3)}, across="ratio", limit=1.15)
    targets = [report.Target("CPU", 1.2, 1.15), report.Target("fewer", 60, 50, "at least")]
    return report.Section(name, "A call", ["What it is."], ["a|b", "c"], [[cell, "x"]], targets, {"calls": chart})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0123, "0.012"), (1.2345, "1.23"), (12.345, "12.3"), (123.4, "123"), (12345, "12,345")],
)
def test_a_figure_shows_what_counts(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_a_ratio_is_taken_within_each_turn() -> None:
    assert Pair([1.0, 4.0, 3.0], [1.0, 2.0, 2.0]).ratio == Spread(1.5, 1.0, 2.0)


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_section_names_day_and_machine_and_each_target_that_is_missed() -> None:
    text = report.markdown(section(), DAY)
    assert "| a\\|b | c |\n| --- | --- |\n| 1.00 | x |" in text
    assert "| CPU | at most 1.15 | 1.20 | **no** |" in text
    assert "| fewer | at least 50.0 | 60.0 | yes |" in text
    assert "![CPU &lt;of&gt; a call](images/calls.svg)" in text
    assert text.endswith(f"*Measured on 2026-11-26: {report.machine()}.*")


def test_a_section_takes_the_place_of_its_predecessor_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    page, images = tmp_path / "page.md", tmp_path / "images"
    page.write_text("# Benchmarks\n\nWords.\n")
    report.write([section("one"), section("two")], page, images)
    report.write([section("one", "2.00")], page, images)
    text = page.read_text()
    assert text.startswith("# Benchmarks\n\nWords.\n\n<!-- measured: one -->\n")
    assert text.count("<!-- measured: one -->") == text.count("<!-- measured: two -->") == 1
    assert text.index("2.00") < text.index("<!-- end: one -->") < text.index("1.00")
    assert ElementTree.fromstring((images / "calls.svg").read_text()).tag == f"{SVG}svg"


def test_bars_stand_in_proportion_with_their_spread_and_both_colour_schemes() -> None:
    values = {"ours": Spread(10, 8, 12), "theirs": Spread(20, 20, 20)}
    chart = svg.bars("t", values, across="ms")
    tree = ElementTree.fromstring(chart)
    widths = [float(one.get("width", 0)) for one in tree.iter(f"{SVG}rect") if one.get("class") in ("a", "b")]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)
    assert len([one for one in tree.iter(f"{SVG}line") if one.get("class") == "spread"]) == 2
    assert "prefers-color-scheme: dark" in chart
    assert "ours: 10.0 (8.00–12.0)" in tree.findtext(f"{SVG}desc", "")


def test_lines_have_a_point_for_each_value_and_fit_the_picture() -> None:
    chart = svg.lines("t", [10, 100, 1000], {"ours": [0.2, 0.2, 3], "peers": [2, 20, 200]}, across="n", up="s")
    tree = ElementTree.fromstring(chart)
    heights = [float(one.get("cy", -1)) for one in tree.iter(f"{SVG}circle")]
    assert len(heights) == 6
    assert heights[0] == heights[1] > heights[2]
    assert heights[3] > heights[4] > heights[5]
    assert all(0 < height < 380 for height in heights)


def test_lines_that_are_flat_can_be_drawn() -> None:
    ElementTree.fromstring(svg.lines("t", [10], {"ours": [1.0]}, across="n", up="s"))
