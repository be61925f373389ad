"""Options that commands share: each is taken by one, and says what it does."""

from __future__ import annotations

import typing

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
