"""`hyena-glt doctor`: facts and a self-test."""

from __future__ import annotations

import json

from hyena_glt.cli import doctor


def test_all_checks_pass_here(cli):
    done = cli("doctor", "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert facts["checks"] == dict.fromkeys(doctor.CHECKS, "ok")
    assert facts["libraries"]["torch"] != "not installed"


def test_a_failing_check_is_an_environment_error(cli, monkeypatch):
    monkeypatch.setitem(doctor.CHECKS, "patcher", lambda: False)
    done = cli("doctor")
    assert done.code == 3
    assert "patcher: wrong result" in done.out
