from __future__ import annotations

import doctest
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

from hyena_glt import sequences

MODULES = sorted(module.name for module in pkgutil.iter_modules(sequences.__path__))


def test_every_public_name_is_there():
    assert set(sequences.__all__) <= set(dir(sequences))
    for name in sequences.__all__:
        assert getattr(sequences, name) is not None


def test_reading_sequences_loads_neither_torch_nor_pysam():
    program = "import sys, hyena_glt.sequences.fasta; print({'torch', 'pysam', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(name):
    assert doctest.testmod(import_module(f"hyena_glt.sequences.{name}")).failed == 0
