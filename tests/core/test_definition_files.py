"""Definitions as text and as files: one way to read them, for every face."""

from __future__ import annotations

import json
import os
import threading

import pytest

from orchestration_integrations import ValidationError, bounded_files
from orchestration_integrations.api.yaml_text import MAX_BYTES
from orchestration_integrations.definition_files import read_definition, text_of_file
from tests.commands import piped

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


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(device):
    with pytest.raises(ValidationError, match=f"{device} cannot be read") as caught:
        read_definition(None, device)
    assert caught.value.path == "path"


def test_a_file_is_read_up_to_a_size(tmp_path):
    (tmp_path / "fits.yaml").write_text(AS_YAML + "#" * (MAX_BYTES - len(AS_YAML)))
    assert read_definition(None, tmp_path / "fits.yaml") == SHORT
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(ValidationError, match=r"sparse\.yaml: has more than 2 MB") as caught:
        read_definition(None, tmp_path / "sparse.yaml")
    assert caught.value.path == "path"


def test_a_pipe_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    def write():
        with open(tmp_path / "pipe", "w") as pipe:
            for line in AS_YAML.splitlines(keepends=True):
                pipe.write(line)
                pipe.flush()

    writer = threading.Thread(target=write)
    writer.start()
    assert read_definition(None, tmp_path / "pipe") == SHORT
    writer.join()


@pytest.mark.parametrize("opened", [False, True])
def test_a_pipe_that_nobody_writes_is_given_up(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(bounded_files, "PIPE_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")
    held = os.open(tmp_path / "pipe", os.O_RDWR) if opened else None
    with pytest.raises(ValidationError, match="nobody has written it"):
        read_definition(None, tmp_path / "pipe")
    if held is not None:
        os.close(held)


def test_the_standard_input_is_read_up_to_a_size():
    with open("/dev/zero", encoding="utf-8") as endless:
        done = piped("workflows", "apply", "-", "--url", "http://127.0.0.1:9", stdin=endless)
    assert done.returncode == 2
    assert "more than 2 MB" in done.stderr


def test_lines_end_in_one_way(tmp_path):
    (tmp_path / "short.yaml").write_bytes(AS_YAML.replace("\n", "\r\n").encode())
    assert text_of_file(tmp_path / "short.yaml")[0] == AS_YAML
