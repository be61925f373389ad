"""The estimate against what a fresh process takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.memory import cached_filter_bytes
from hyena_glt.ops.exponential_conv import CHUNK

TOLERANCE = 0.2
MEASURE = """
import json, sys
import torch
from hyena_glt import HyenaGLT, HyenaGLTConfig

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

preset, length, training = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
torch.set_num_threads(1)
net = HyenaGLT(HyenaGLTConfig.preset(preset)).train(training)
optimizer = torch.optim.AdamW(net.parameters())
tokens, lengths = torch.randint(69, 89, (1, length)), torch.full((1, length // 16), 16)
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")
before = status("VmRSS")
with torch.set_grad_enabled(training):
    for _ in range(2 if training else 1):
        output = net(tokens, lengths, compute_loss=training)
        if training:
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
estimate = net.estimate_memory(length, 1, 16, training).peak_bytes
print(json.dumps({"growth": status("VmHWM") - before, "estimate": estimate}))
"""


def measured(preset: str, length: int, training: bool = False) -> dict[str, int]:
    """Growth of the resident memory of a fresh process, and the estimate made there."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process cannot be reset here")
    command = [sys.executable, "-c", MEASURE, preset, str(length), str(training)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_small_forward_takes_what_was_estimated():
    found = measured("small", 8192)
    assert found["estimate"] == pytest.approx(found["growth"], rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("length", [8192, 32768, 131072])
@pytest.mark.parametrize("preset", ["small", "base"])
def test_any_forward_takes_what_was_estimated(preset, length):
    found = measured(preset, length)
    assert found["estimate"] == pytest.approx(found["growth"], rel=TOLERANCE)


@pytest.mark.slow
def test_a_training_step_takes_what_was_estimated():
    found = measured("small", 8192, training=True)
    assert found["estimate"] == pytest.approx(found["growth"], rel=TOLERANCE)


def test_the_parts_make_the_peak(small_net):
    estimate = small_net().estimate_memory(4096)
    assert estimate.peak_bytes == max(estimate.parts.values()) + estimate.overhead_bytes
    assert estimate.dominant in ("encoder", "pooling", "trunk", "bytes")
    assert estimate.kept["logits"] == 4096 * 260 * 4
    assert estimate.weights_bytes == sum(weight.numel() * 4 for weight in small_net().parameters())


def test_more_of_anything_needs_more(small_net):
    net = small_net()
    least = net.estimate_memory(4096).peak_bytes
    assert net.estimate_memory(8192).peak_bytes > least
    assert net.estimate_memory(4096, batch=2).peak_bytes > least
    assert net.estimate_memory(4096, patch_length=1).peak_bytes > least
    assert net.estimate_memory(4096, training=True).peak_bytes > least


@pytest.mark.parametrize(
    ("long_filter", "num_patches", "long"),
    [
        ("exponential", 2048, 2 * 256 * CHUNK * (CHUNK + 2 * 16) * 4),  # the matrices of chunks
        ("implicit", 2048, 2 * 256 * (4096 // 2 + 1) * 8),  # spectra
    ],
)
def test_cached_filters_are_counted(long_filter, num_patches, long):
    config = HyenaGLTConfig.preset("small", long_filter=long_filter)  # 2 short, 2 medium, 2 long of 256 channels
    short, medium = 2 * 256 * 7 * 4, 2 * 256 * (512 // 2 + 1) * 8
    assert cached_filter_bytes(config, num_patches) == short + medium + long
    kept = HyenaGLT(config).estimate_memory(16 * num_patches).kept
    assert kept["filters"] == cached_filter_bytes(config, num_patches)


@pytest.mark.parametrize("options", [{"length": 0}, {"length": 8, "batch": 0}, {"length": 8, "patch_length": 0.5}])
def test_numbers_below_one_are_refused(small_net, options):
    with pytest.raises(ConfigError, match="at least 1"):
        small_net().estimate_memory(**options)
