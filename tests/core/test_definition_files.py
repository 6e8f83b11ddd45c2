"""Definitions as text and as files: one way to read them, for every face."""

from __future__ import annotations

import json

import pytest

from orchestration_integrations import ValidationError
from orchestration_integrations.definition_files import read_definition

SHORT = {"name": "short", "stages": [{"delay": {"duration": "1s"}}]}
AS_YAML = "name: short\nstages:\n- delay:\n    duration: 1s\n"


@pytest.mark.parametrize("given", [SHORT, AS_YAML, json.dumps(SHORT)])
def test_mappings_and_texts_are_one(given):
    assert read_definition(given, None) == SHORT


@pytest.mark.parametrize("text", [AS_YAML, json.dumps(SHORT), "\ufeff" + AS_YAML])
@pytest.mark.parametrize("how", ["text", "path object", "relative"])
def test_files(tmp_path, monkeypatch, text, how):
    file = tmp_path / "short.yaml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = {"text": str(file), "path object": file, "relative": "short.yaml"}[how]
    assert read_definition(None, given) == SHORT


def test_folders_are_searched_in_their_order_and_not_the_working_one(tmp_path, monkeypatch):
    for name in ("first", "second", "working"):
        (tmp_path / name).mkdir()
    (tmp_path / "second/a.yaml").write_text(AS_YAML)
    (tmp_path / "working/a.yaml").write_text("name: other\nstages: []\n")
    (tmp_path / "working/b.yaml").write_text(AS_YAML)
    monkeypatch.chdir(tmp_path / "working")
    folders = [str(tmp_path / "first"), str(tmp_path / "second")]
    assert read_definition(None, "a.yaml", folders=folders) == SHORT
    with pytest.raises(ValidationError, match=r"first/b\.yaml or .*second/b\.yaml"):
        read_definition(None, "b.yaml", folders=folders)


@pytest.mark.parametrize(
    ("definition", "path", "named"),
    [
        (None, None, "definition"),
        ("", "", "definition"),
        (SHORT, "x.yaml", "definition"),
        (["a"], None, "definition"),
        ("- a", None, "definition"),
        ({}, None, "definition"),
        (None, "no/such/file.yaml", "path"),
        (None, 5, "path"),
        (None, ".", "path"),
    ],
)
def test_what_is_no_definition_is_refused_by_name(definition, path, named):
    with pytest.raises(ValidationError) as caught:
        read_definition(definition, path)
    assert caught.value.path == named


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValidationError) as caught:
        read_definition(None, tmp_path / "x.yaml")
    assert caught.value.path == "path"
