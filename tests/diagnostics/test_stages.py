"""Every moment of a forward belongs to one stage, and watching changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hyena_glt import Patcher
from hyena_glt.diagnostics import profile_stages
from hyena_glt.diagnostics.stages import STAGES, Watch, hooked, watched_patcher
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model.sources import encode_rows, patch_rows


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self):
        self.said = []

    def begin(self, stage):
        self.said.append(("begin", stage))

    def end(self, stage):
        self.said.append(("end", stage))


@pytest.fixture
def tokens(sequence):
    return encode_rows([sequence * 4, sequence])


def test_stages_lie_side_by_side_without_gaps():
    heard = Heard()
    watch = Watch(heard)
    with watch.stage("a"):
        with watch.stage("b"):
            watch.become("c")
        with watch.stage("d"):
            pass
    openings = [stage for word, stage in heard.said if word == "begin"]
    assert openings == ["a", "b", "c", "a", "d", "a"]
    assert heard.said[::2] == [("begin", stage) for stage in openings]
    assert heard.said[1::2] == [("end", stage) for stage in openings]


def test_the_stages_sum_to_the_whole(make_net, entropy_patcher, tokens):
    found = profile_stages(make_net(), entropy_patcher, [tokens] * 3)
    assert [stage.name for stage in found.stages] == list(STAGES)
    assert sum(stage.wall_s for stage in found.stages) <= found.wall_s
    assert sum(found.share(stage.name) for stage in found.stages) == pytest.approx(1)
    assert sum(stage.cpu_s for stage in found.stages) == pytest.approx(found.cpu_s, rel=0.1)
    assert found.num_batches == 3
    assert found.num_bases == 3 * 5 * 128
    timed = {stage.name for stage in found.stages if stage.wall_s > 0}
    assert timed == set(STAGES) - {"read"}
    assert found.share("other") < 0.5


def test_reading_is_added_where_it_was_measured(make_net, entropy_patcher, tokens):
    found = profile_stages(make_net(), entropy_patcher, [tokens])
    more = found.with_read(1.5, 1.0)
    assert more.stage("read").wall_s == 1.5
    assert more.wall_s == found.wall_s + 1.5
    assert more.clock == "cpu"
    assert more.as_dict()["stages"][0]["ns_per_base"] == pytest.approx(1.0e9 / found.num_bases)


def test_operations_are_those_of_the_layers(make_net, tokens):
    net = make_net()
    found = profile_stages(net, Patcher(patching_mode="static", patch_size=4), [tokens, tokens])
    rows, longest = tokens.shape
    logits = 2 * rows * longest * 16 * 260
    assert found.stage("logits").flops == 2 * logits  # two batches
    assert found.stage("entropies").flops is None
    assert found.flops_per_base == pytest.approx(sum(s.flops or 0 for s in found.stages) / found.num_bases)


def test_deeper_is_more_trunk(make_net, tokens):
    patcher = Patcher(patching_mode="static", patch_size=4)
    shallow, deep = (
        profile_stages(make_net(num_layers=layers), patcher, [tokens]).stage("trunk").flops for layers in (3, 6)
    )
    assert deep == pytest.approx(2 * shallow, rel=0.01)


def test_learned_boundaries_are_a_stage_of_the_net(make_net, tokens):
    found = profile_stages(make_net(boundaries="learned"), None, [tokens])
    assert found.stage("boundaries").wall_s > 0
    assert found.stage("entropies").wall_s == 0


@pytest.mark.parametrize("model", ["fitted", "auto", "network", "function"])
def test_watching_a_patcher_changes_no_patch(entropy_patcher, tokens, model):
    def flat(ids):
        return torch.zeros(*ids.shape, 260)

    sources = {"fitted": entropy_patcher.entropy_model, "auto": "auto", "network": Flat(), "function": flat}
    patcher = Patcher(patching_mode="entropy", entropy_model=sources[model], threshold=1.38, max_patch_length=9)
    heard = Heard()
    watch = Watch(heard)
    with watch.stage("other"), watched_patcher(patcher, watch) as watched:
        found = patch_rows(watched, tokens)
    expected = patch_rows(patcher, tokens)
    assert found.patch_lengths.tolist() == expected.patch_lengths.tolist()
    assert found.known_starts.tolist() == expected.known_starts.tolist()
    assert ("begin", "entropies") in heard.said
    assert ("begin", "boundaries") in heard.said


class Flat(nn.Module):
    """A network that knows nothing."""

    def forward(self, ids):
        return torch.zeros(*ids.shape, 260)


def test_hooks_change_nothing_and_go_away(make_net, entropy_patcher, tokens):
    net = make_net(entropy_patcher)
    with torch.no_grad():
        before = net(tokens).logits
        watch = Watch(Heard())
        with watch.stage("other"), hooked(net, watch):
            during = net(tokens).logits
        torch.testing.assert_close(during, before, atol=1e-5, rtol=1e-5)  # hooked modules run whole, not in blocks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_hooks_go_away_after_an_error(make_net, tokens):
    net = make_net()
    with pytest.raises(ConfigError):
        profile_stages(net, None, [tokens])
    net.trunk.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        profile_stages(net, Patcher(patching_mode="static", patch_size=4), [tokens])
    assert [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in (net.bridge, net.pooling)] == [0, 0]


def test_a_net_in_training_stays_so(make_net, tokens):
    net = make_net().train()
    profile_stages(net, Patcher(patching_mode="static", patch_size=4), [tokens])
    assert net.training


@pytest.mark.parametrize("batches", [[], [torch.full((1, 3), -1)]])
def test_nothing_to_run_is_an_error(make_net, batches):
    with pytest.raises(DataError, match="at least one"):
        profile_stages(make_net(), Patcher(patching_mode="byte"), batches)
