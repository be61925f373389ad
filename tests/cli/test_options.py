"""Options that commands share: each is taken by one, and says what it does."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from hyena_glt.cli import main, options

SHARED = {name: value for name, value in vars(options).items() if hasattr(value, "__metadata__")}


def annotations_of(command):
    return typing.get_type_hints(command.callback, include_extras=True).values()


def test_every_shared_option_is_taken_by_a_command():
    taken = [hint for command in main.app.registered_commands for hint in annotations_of(command)]
    assert [name for name, value in SHARED.items() if value not in taken] == []


@pytest.mark.parametrize("name", SHARED)
def test_every_shared_option_says_what_it_does(name):
    assert SHARED[name].__metadata__[0].help


def test_threads_are_at_most_four(monkeypatch):
    for cores, threads in ((1, 1), (3, 3), (64, 4), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert options.default_threads() == threads


def test_the_net_that_ships_has_a_name(tmp_path, monkeypatch):
    """Unless there is a folder of that name here."""
    monkeypatch.chdir(tmp_path)
    name = Path("hyena-glt-dna")
    found = options.by_name(name)
    assert (found / "manifest.json").is_file()
    assert options.by_name(None) is None
    assert options.by_name(Path("elsewhere")) == Path("elsewhere")
    name.mkdir()
    assert options.by_name(name) == name
