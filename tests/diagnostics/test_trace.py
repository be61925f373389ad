"""A trace that a browser opens, with the stages in it."""

from __future__ import annotations

import json

import pytest

from hyena_glt.diagnostics import write_trace
from hyena_glt.errors import OutputExistsError
from hyena_glt.model.sources import encode_rows


def test_the_stages_stand_in_the_trace(make_net, entropy_patcher, sequence, tmp_path, capfd):
    path = tmp_path / "trace.json"
    write_trace(make_net(), entropy_patcher, encode_rows(sequence), path, provenance={"command": "x"})
    content = json.loads(path.read_text())
    names = {event["name"] for event in content["traceEvents"] if str(event.get("name")).startswith("stage: ")}
    assert {"stage: entropies", "stage: trunk", "stage: logits", "stage: positions"} <= names
    assert any(str(event.get("name")).startswith("aten::") for event in content["traceEvents"])
    assert content["provenance"] == {"command": "x"}
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_trace_is_not_overwritten_unless_asked(make_net, entropy_patcher, sequence, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_trace(make_net(), entropy_patcher, encode_rows(sequence), path)
    assert path.read_text() == "mine"
    write_trace(make_net(entropy_patcher), None, encode_rows(sequence), path, overwrite=True)
    assert "traceEvents" in json.loads(path.read_text())
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.json"]
