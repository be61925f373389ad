"""The Triton kernel in Triton's interpreter against the definition in float64, and what happens without it.

The interpreter is switched on before Triton is imported, so the kernel runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import subprocess
import sys

import pytest
import torch

from hyena_glt.entropies import shannon
from hyena_glt.entropies.shannon import entropy, entropy_reference

BOUND = 1e-5  # nats, as `row_entropies` states
SHAPES = [(7, 260), (3, 4), (2, 1), (1, 4096), (5, 1000)]
SCALES = [0.01, 1.0, 8.0, 60.0]  # the last: nearly all weight on one logit
DTYPES = ["float32", "float16", "bfloat16"]

IN_THE_INTERPRETER = f"""
import json, warnings
import torch
from hyena_glt.entropies.entropy_triton import row_entropies
from hyena_glt.entropies.shannon import entropy_reference

def error(scores):
    found = row_entropies(scores)
    assert found.dtype == torch.float32 and found.shape == scores.shape[:1]
    return float((found - entropy_reference(scores.double())).abs().max())

random = torch.Generator().manual_seed(0)
result = {{"errors": {{}}}}
for rows, vocab in {SHAPES}:
    for kind in {DTYPES}:
        drawn = [torch.randn(rows, vocab, generator=random) * scale for scale in {SCALES}]
        result["errors"][f"{{rows}}x{{vocab}} {{kind}}"] = max(error(x.to(getattr(torch, kind))) for x in drawn)
wide = torch.randn(9, 600, generator=random)
result["strided"] = max(error(wide[:, ::2]), error(wide.T[:40]), error(wide[::3, 5:300]))
barred = torch.full((3, 8), float("-inf"))
barred[0, :4] = 0.0
barred[1, 2] = -3.0
barred[2, 1:3] = torch.tensor([1.0, 2.0])
result["barred"] = row_entropies(barred).tolist()
odd = torch.zeros(3, 8)
odd[0, 1], odd[1, 1], odd[2] = float("nan"), float("inf"), float("-inf")
result["odd"] = torch.isnan(row_entropies(odd)).tolist()
print(json.dumps(result))
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from hyena_glt.entropies.entropy_triton import row_entropy_kernel

KINDS = {"entropies": "*fp32", "row_stride": "i32", "column_stride": "i32", "vocab": "i32", "BLOCK": "constexpr"}
for architecture in (80, 90):
    for kind in ("*fp32", "*fp16", "*bf16"):
        source = ASTSource(row_entropy_kernel, {"scores": kind, **KINDS}, constexprs={"BLOCK": 512})
        print(len(triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"]))
"""


def run_python(code, **variables):
    """Standard output of a process that has Triton."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def interpreted():
    """What the kernel gave in the interpreter."""
    return json.loads(run_python(IN_THE_INTERPRETER, TRITON_INTERPRET="1"))


def test_the_kernel_gives_the_entropy_of_the_definition(interpreted):
    assert len(interpreted["errors"]) == len(SHAPES) * len(DTYPES)
    assert max(interpreted["errors"].values()) < BOUND, interpreted["errors"]


def test_the_kernel_reads_any_strides(interpreted):
    assert interpreted["strided"] < BOUND


def test_a_logit_of_minus_infinity_adds_nothing(interpreted):
    expected = [math.log(4), 0.0, entropy_reference(torch.tensor([1.0, 2.0], dtype=torch.float64)).item()]
    assert interpreted["barred"] == pytest.approx(expected, abs=BOUND)


def test_rows_without_a_distribution_give_nan(interpreted):
    assert interpreted["odd"] == [True, True, True]


def test_the_kernel_compiles_to_machine_code_without_a_card(tmp_path):
    sizes = run_python(COMPILED, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)).split()
    assert len(sizes) == 6
    assert all(int(size) > 0 for size in sizes)


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "hyena_glt.entropies.entropy_triton", raising=False)
    shannon._triton_kernel.cache_clear()
    yield
    shannon._triton_kernel.cache_clear()


@pytest.mark.usefixtures("without_triton")
def test_without_triton_the_plain_path_runs_and_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setattr(shannon, "_suits_kernel", lambda rows: True)
    scores = torch.randn(2, 3, 260, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING, "hyena_glt"):
        found = [entropy(scores), entropy(scores)]
    assert all(torch.equal(values, entropy_reference(scores)) for values in found)
    assert [record.name for record in caplog.records] == ["hyena_glt.entropies.shannon"]
    assert "the Triton kernel does not run here" in caplog.text


def test_rows_that_suit_the_kernel_go_to_it(monkeypatch):
    monkeypatch.setattr(shannon, "_suits_kernel", lambda rows: True)
    monkeypatch.setattr(shannon, "_triton_kernel", lambda: lambda rows: rows[:, 0])
    scores = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(entropy(scores), scores[..., 0])


class OnCard:
    """Stands for a CUDA tensor where there is no card."""

    is_cuda = True

    def __init__(self, shape, dtype=torch.float32, requires_grad=False):
        self.shape, self.dtype, self.requires_grad = shape, dtype, requires_grad


@pytest.mark.parametrize(
    ("rows", "suits"),
    [
        (OnCard((5, 260)), True),
        (OnCard((5, 4096), torch.bfloat16), True),
        (OnCard((5, 4097)), False),
        (OnCard((0, 260)), False),
        (OnCard((5, 0)), False),
        (OnCard((5, 260), torch.float64), False),
        (OnCard((5, 260), requires_grad=True), False),
        (torch.zeros(5, 260), False),
    ],
)
def test_the_kernel_is_for_cards_and_short_rows_without_gradient(rows, suits):
    assert shannon._suits_kernel(rows) is suits


def test_without_gradients_wanted_weights_do_not_matter():
    with torch.no_grad():
        assert shannon._suits_kernel(OnCard((5, 260), requires_grad=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", DTYPES)
def test_a_gpu_gives_the_entropy_of_the_definition(kind):
    scores = (torch.randn(500, 260, generator=torch.Generator().manual_seed(0)) * 4).to(getattr(torch, kind))
    found = entropy(scores.cuda())
    assert found.device.type == "cuda"
    assert (found.cpu() - entropy_reference(scores.double())).abs().max() < BOUND
