"""Provenance in JSON and in comment lines: the same facts, each on its line."""

from __future__ import annotations

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.__about__ import __version__
from hyena_glt.tracks.provenance import Provenance, beside_details

words = st.lists(st.text(st.characters(codec="utf-8"), max_size=10), min_size=1, max_size=4)


@given(words)
def test_the_command_can_be_run_again(command):
    assert shlex.split(Provenance(tuple(command)).as_dict()["command"]) == command


@given(words, st.dictionaries(st.sampled_from("abc"), st.text(max_size=10) | st.integers() | st.none()))
def test_every_fact_has_one_printable_comment_line(command, details):
    lines = Provenance(tuple(command), details).as_comments().decode().removesuffix("\n").split("\n")
    assert len(lines) == 2 + len(details)
    assert all(line.startswith("##hyena_glt") and line.isprintable() for line in lines)


def test_values_that_are_no_text_are_json():
    origin = Provenance(("hyena-glt",), {"rule": {"threshold": 1.5}, "input": "x.fa"})
    assert origin.as_comments().decode().splitlines() == [
        f"##hyena_gltVersion={__version__}",
        "##hyena_gltCommand=hyena-glt",
        f"##hyena_glt_rule={json.dumps({'threshold': 1.5})}",
        "##hyena_glt_input=x.fa",
    ]


def test_more_details_make_another_record():
    origin = Provenance(("hyena-glt",), {"a": 1, "b": 2})
    assert origin.extended({"b": 3, "c": 4}).as_dict() | {"hyena_glt_version": 0} == {
        "hyena_glt_version": 0,
        "command": "hyena-glt",
        "a": 1,
        "b": 3,
        "c": 4,
    }
    assert origin.details == {"a": 1, "b": 2}


def test_files_read_beside_the_input_tell_by_their_content(tmp_path):
    file, folder = tmp_path / "p.json", tmp_path / "net"
    folder.mkdir()
    file.write_text("a")
    (folder / "weights").write_text("b")
    first = beside_details([file, None, folder])
    assert first.keys() == {"beside_sha256"}
    assert beside_details([file, folder]) == first
    assert beside_details([file]) != first
    (folder / "weights").write_text("c")
    assert beside_details([file, folder]) != first
    assert beside_details([None, tmp_path / "absent"]) == {}


def test_an_output_is_the_same_if_all_that_was_read_is():
    origin = Provenance(("hyena-glt",), {"input_sha256": "a", "beside_sha256": "b", "note": "x"})
    assert origin.is_same({**origin.as_dict(), "note": "y"})
    for key in ("hyena_glt_version", "command", "input_sha256", "beside_sha256"):
        assert not origin.is_same({**origin.as_dict(), key: "other"})
    assert not origin.is_same({})
