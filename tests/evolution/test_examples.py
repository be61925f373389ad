"""Every example in the docstrings of this folder runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import hyena_glt.evolution

MODULES = [module.name for module in pkgutil.iter_modules(hyena_glt.evolution.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    if name in ("analyzer", "trees"):
        pytest.importorskip("skbio")
    failed, _ = doctest.testmod(importlib.import_module(f"hyena_glt.evolution.{name}"))
    assert failed == 0
