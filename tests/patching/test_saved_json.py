"""What is checked of every JSON file of a patcher: size, keys, and the names of files beside it."""

from __future__ import annotations

import json

import pytest

from hyena_glt.errors import ModelFileError
from hyena_glt.patching.saved_json import named_beside, read_saved_json, reference_to
from hyena_glt.sequences.atomic import sha256_file

KIND = {"kind": "a list", "file_format": "list/1", "keys": {"format", "items"}, "mapping": "items", "largest": 60}


def test_a_sound_file_comes_back_whole(tmp_path):
    content = {"format": "list/1", "items": {"a": [1, None]}}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_saved_json(tmp_path / "x.json", **KIND) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a list, found no such file"),
        (" " * 61, "expected a list of at most 60 bytes"),
        ("{", "not JSON"),
        ('{"format": "list/2", "items": {}}', "format: expected 'list/1', got 'list/2'"),
        ('{"format": "list/1"}', "expected the keys format, items; wrong: items"),
        ('{"format": "list/1", "items": {}, "more": 1}', "wrong: more"),
        ('{"format": "list/1", "items": []}', "wrong: items"),
    ],
)
def test_everything_else_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_saved_json(path, **KIND)
    assert caught.value.path == str(path)


def test_a_reference_leads_back_to_its_file(tmp_path):
    place = tmp_path / "model.bin"
    place.write_bytes(b"weights")
    found = named_beside(tmp_path / "x.json", reference_to(place), suffix=".bin")
    assert found == (place, sha256_file(place))


@pytest.mark.parametrize("name", ["", ".", "..", "../x.bin", "/x.bin", "deep/x.bin", "x.txt"])
def test_a_name_that_leaves_the_folder_or_ends_otherwise_is_refused(tmp_path, name):
    with pytest.raises(ModelFileError, match=r"model: expected the name of a \.bin file in the same folder"):
        named_beside(tmp_path / "x.json", {"path": name, "sha256": "0"}, key="model", suffix=".bin")


@pytest.mark.parametrize("reference", [None, "x.bin", {"path": "x.bin"}, {"path": "x", "sha256": "0", "more": 1}])
def test_what_is_no_reference_is_refused(tmp_path, reference):
    with pytest.raises(ModelFileError, match="model: expected a reference with path and sha256"):
        named_beside(tmp_path / "x.json", reference, key="model")
