"""The trunk: its layout, its branches, and recomputation."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.errors import ConfigError
from hyena_glt.layers import ExplicitFilter, ExponentialFilter, ImplicitFilter
from hyena_glt.layers.hyena_filter import SummedFilter
from hyena_glt.model import HyenaTrunk

pytestmark = pytest.mark.usefixtures("one_thread")


def test_filters_follow_the_layout_in_order(small_config):
    trunk = HyenaTrunk(small_config(num_layers=5))
    kinds = [type(block.operator.past) for block in trunk.blocks]
    assert kinds == [ExplicitFilter, ExplicitFilter, ExponentialFilter, ExplicitFilter, ExplicitFilter]
    assert [block.operator.past(1000).shape[1] for block in trunk.blocks] == [7, 24, 1000, 7, 24]


@pytest.mark.parametrize(
    ("name", "kind"), [("implicit", ImplicitFilter), ("exponential", ExponentialFilter), ("both", SummedFilter)]
)
def test_the_long_filter_is_the_one_that_is_named(small_config, name, kind):
    trunk = HyenaTrunk(small_config(num_layers=1, trunk_layout=("long",), long_filter=name))
    assert isinstance(trunk.blocks[0].operator.past, kind)


def test_recomputing_gives_the_same_gradients(small_config):
    torch.manual_seed(0)
    trunk, x = HyenaTrunk(small_config()), torch.randn(2, 9, 24)
    gradients = []
    for recompute in (False, True):
        trunk.zero_grad()
        trunk(x, recompute=recompute).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in trunk.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_dropout_works_in_training_alone(small_config):
    torch.manual_seed(0)
    trunk, x = HyenaTrunk(small_config(dropout=0.5)), torch.randn(1, 9, 24)
    assert not torch.equal(trunk(x), trunk(x))
    trunk.eval()
    assert torch.equal(trunk(x), trunk(x))


def in_pieces(trunk, x, sizes):
    pieces, state = [], None
    for piece in x.split(sizes, dim=1):
        y, state = trunk.stream(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=1), state


@pytest.mark.parametrize("long_filter", ["implicit", "exponential", "both"])
@pytest.mark.parametrize("sizes", [[1] * 150, [60, 1, 1, 38, 50], [17] * 8 + [14]])
def test_any_chunking_of_a_stream_equals_the_whole(small_config, long_filter, sizes):
    torch.manual_seed(0)
    trunk = HyenaTrunk(small_config(long_filter=long_filter)).eval()
    x = torch.randn(2, 150, 24)
    with torch.inference_mode():
        result, _ = in_pieces(trunk, x, sizes)
        torch.testing.assert_close(result, trunk(x), atol=1e-5, rtol=0)  # the last norm makes values of order 1


@torch.inference_mode()
def test_a_trunk_of_exponentials_streams_in_constant_memory(small_config):
    trunk = HyenaTrunk(small_config(long_filter="exponential")).eval()
    sizes = [in_pieces(trunk, torch.randn(1, n, 24), [1] * n)[1].num_bytes for n in (60, 600)]
    assert sizes[1] <= sizes[0]


def test_a_trunk_that_sees_both_sides_cannot_be_streamed(small_config):
    with pytest.raises(ConfigError, match="causal"):
        HyenaTrunk(small_config(causal=False)).stream(torch.zeros(1, 1, 24))


def test_an_optimizer_step_is_seen_by_the_next_forward_without_gradients(small_config):
    torch.manual_seed(0)
    trunk, x = HyenaTrunk(small_config(trunk_layout=("medium", "long"))).eval(), torch.randn(1, 150, 24)
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
    for _ in range(2):
        with torch.no_grad():
            cached = trunk(x)
        y = trunk(x)
        torch.testing.assert_close(cached, y.detach(), atol=1e-5, rtol=1e-6)
        y.square().sum().backward()
        optimizer.step()


@torch.inference_mode()
def test_hidden_states_are_those_on_the_way(small_config):
    torch.manual_seed(0)
    trunk = HyenaTrunk(small_config()).eval()
    x = torch.randn(2, 20, 24)
    on_the_way = [x]
    for block in trunk.blocks:
        on_the_way.append(block(on_the_way[-1]))
    for layer in range(3):
        assert torch.equal(trunk.hidden_states(x, layer=layer), on_the_way[layer])
        assert torch.equal(trunk.hidden_states(x, layer=layer - 4), on_the_way[layer])
    for last in (3, -1):
        assert torch.equal(trunk.hidden_states(x, layer=last), trunk(x))
    for wrong in (4, -5):
        with pytest.raises(ConfigError, match="-4 to 3"):
            trunk.hidden_states(x, layer=wrong)


@pytest.mark.parametrize("long_filter", ["implicit", "exponential"])
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_trunk_compiles_into_one_graph(small_config, long_filter):
    torch.manual_seed(0)
    trunk = HyenaTrunk(small_config(long_filter=long_filter)).eval()
    x = torch.randn(2, 150, 24)
    compiled = torch.compile(trunk, fullgraph=True, backend="eager")
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(compiled(x), trunk(x), atol=1e-5, rtol=0)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_gradients_are_those_of_the_trunk(small_config):
    torch.manual_seed(0)
    trunk, x = HyenaTrunk(small_config()), torch.randn(2, 150, 24)
    gradients = []
    for forward in (trunk, torch.compile(trunk, fullgraph=True, backend="aot_eager")):
        gradients.append(torch.autograd.grad(forward(x).square().sum(), list(trunk.parameters())))
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)
    torch._dynamo.reset()
