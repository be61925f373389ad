"""Errors name their place and are the builtins that a caller would catch."""

from __future__ import annotations

import inspect

import pytest

from hyena_glt import errors


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "bad"),
        ({"path": "a.fa"}, "a.fa: bad"),
        ({"path": "a.fa", "line": 3}, "a.fa:3: bad"),
        ({"path": "a.fa", "line": 3, "record": "chr1"}, "a.fa:3 (chr1): bad"),
        ({"path": "-", "line": 2}, "<stdin>:2: bad"),
        ({"line": 2}, "line 2: bad"),
        ({"record": "chr1"}, "chr1: bad"),
    ],
)
def test_a_data_error_says_where(place, text):
    assert str(errors.DataError("bad", **place)) == text


@pytest.mark.parametrize(
    ("kind", "builtin", "code"),
    [
        (errors.AlphabetError, ValueError, 1),
        (errors.PatchingError, ValueError, 1),
        (errors.ConfigError, ValueError, 1),
        (errors.UsageError, ValueError, 2),
        (errors.OutputExistsError, FileExistsError, 2),
        (errors.SystemProblem, OSError, 3),
        (errors.MissingExtraError, ImportError, 3),
    ],
)
def test_each_kind_is_the_builtin_one_would_catch(kind, builtin, code):
    assert issubclass(kind, builtin)
    assert kind.exit_code == code


def test_the_tree_in_the_docstring_is_the_tree():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert all(issubclass(c, errors.HyenaGLTError) for c in classes)
    assert all(c.__name__ in (errors.__doc__ or "") for c in classes)
