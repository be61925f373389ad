"""What a package promises is there, documented, and nothing else is promised."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hyena_glt"
PACKAGES = ["hyena_glt", *(f"hyena_glt.{p.parent.name}" for p in sorted(PACKAGE.glob("*/__init__.py")))]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_exists_and_says_what_it_is(name):
    package = importlib.import_module(name)
    for exported in getattr(package, "__all__", []):
        value = getattr(package, exported)
        if callable(value):
            assert value.__doc__, f"{name}.{exported} has no docstring"
    assert set(getattr(package, "__all__", [])) <= set(dir(package))


def test_an_unknown_name_is_an_attribute_error():
    import hyena_glt

    with pytest.raises(AttributeError, match="NoSuchThing"):
        hyena_glt.NoSuchThing  # noqa: B018
