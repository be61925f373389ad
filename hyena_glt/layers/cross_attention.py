"""Attention from every token to a few consecutive states of another, shorter sequence."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.layers.feed_forward import row_blocks
from hyena_glt.layers.norm_loops import prepared_norm
from hyena_glt.layers.window_reading import ReadWindows, compiled_loops
from hyena_glt.ops.shifted_sum import compiled_loops_read, own_array

BLOCK_TOKENS = 2048
COMPILED_TOKENS = 8192

Reader = Callable[[Tensor, slice, slice], Tensor]  # `(rows, n, dim)`, which rows and places these are -> the same shape


class WindowedCrossAttention(nn.Module):
    """Each token attends to `num_slots` consecutive states of its row and to a learned null state.

    States outside the row are left out of the softmax; the null state is always there, so a token
    without any state still has an answer. The place in the window is part of the key.

    Args:
        dim: Width of the tokens and of the result.
        state_dim: Width of the states.
        num_heads: Attention heads.
        num_slots: States in a window.
    """

    def __init__(self, dim: int, state_dim: int, num_heads: int, num_slots: int) -> None:
        super().__init__()
        self.num_heads, self.num_slots = num_heads, num_slots
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_query = nn.Linear(dim, dim, bias=False)
        self.to_key_value = nn.Linear(state_dim, 2 * dim, bias=False)
        self.null_key_value = nn.Parameter(torch.randn(2 * dim))
        self.slot_keys = nn.Parameter(torch.randn(num_slots, dim) / math.sqrt(dim))
        self.project_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, states: Tensor, first: Tensor, num_states: Tensor) -> Tensor:
        """What each token reads.

        Args:
            x: `(batch, length, dim)`.
            states: `(batch, num_states, state_dim)`.
            first: `(batch, length)` int64, first state of each token's window, from `-num_slots` to the
                number of states less one.
            num_states: `(batch,)` int64, states of each row that are no padding.

        Returns:
            `(batch, length, dim)`.
        """
        slots, null = self.slot_keys, self.null_key_value
        if compiled_loops_read(x, states, slots, null, self.to_query.weight):
            way = self.read_recorded if torch.is_grad_enabled() else self.read_compiled
            return way(x, states, first, num_states)
        windows = self.windows(states)  # (batch, windows, slots * 2 * dim)
        rows = torch.arange(len(first), device=first.device).view(-1, 1) * windows.shape[1]
        source = (first + self.num_slots + rows).flatten()
        valid = self.valid_slots(first, num_states).flatten(0, 1)
        query = self.to_query(self.norm(x)).flatten(0, 1)
        blocks = zip(*(part.split(BLOCK_TOKENS) for part in (query, source, valid)), strict=True)
        table = windows.flatten(0, 1)
        read = [self.attend(q, table.index_select(0, index), seen) for q, index, seen in blocks]
        return self.project_out(torch.cat(read).view_as(x))

    def read_compiled(self, x: Tensor, states: Tensor, first: Tensor, num_states: Tensor) -> Tensor:
        """`forward` without gradients on the CPU: each token reads its states where they lie, none are gathered."""
        read, y = self.reader(states, first, num_states), torch.empty_like(x)
        for rows, part in row_blocks(len(x), x.shape[1], COMPILED_TOKENS):
            y[rows, part] = self.project_out(read(x[rows, part].contiguous(), rows, part))
        return y

    def reader(self, states: Tensor, first: Tensor, num_states: Tensor) -> Reader:
        """What gives the mean values that a part of the tokens reads, before the last product.

        Without gradients on the CPU; the states are projected once for all parts, which are contiguous.
        """
        heads = (self.num_heads, self.slot_keys.shape[1] // self.num_heads)
        score, blend, _ = compiled_loops(heads[1], self.num_slots)
        slots, null = own_array(self.slot_keys.view(-1, *heads)), own_array(self.null_key_value.view(2, *heads))
        norm, weight = prepared_norm(self.norm), self.to_query.weight.T.contiguous()
        key_value = self.to_key_value(states).unflatten(-1, (2, *heads)).numpy()
        counts, starts = num_states.tolist(), first.contiguous().numpy()

        def read(x: Tensor, rows: slice, part: slice) -> Tensor:
            query = torch.mm(norm(x).flatten(0, 1), weight).view(*x.shape[:2], *heads)
            weights, mixed = query.new_empty(*query.shape[:3], self.num_slots + 1), torch.empty_like(query)
            known = list(zip(key_value[rows], starts[rows, part], counts[rows], strict=True))
            for scores, asked, (states, begin, count) in zip(weights.numpy(), query.numpy(), known, strict=True):
                score(scores, asked, states, slots, null, begin, count)
            for result, shares, (states, begin, count) in zip(
                mixed.numpy(), weights.exp_().numpy(), known, strict=True
            ):
                blend(result, shares, states, null, begin, count)
            return mixed.view_as(x)

        return read

    def read_recorded(self, x: Tensor, states: Tensor, first: Tensor, num_states: Tensor) -> Tensor:
        """`forward` on the CPU where a graph is recorded."""
        heads = (self.num_heads, x.shape[-1] // self.num_heads)
        query = self.to_query(self.norm(x)).unflatten(-1, heads)
        key_value = self.to_key_value(states).unflatten(-1, (2, *heads))
        slots, null = self.slot_keys.unflatten(-1, heads), self.null_key_value.view(2, *heads)
        return self.project_out(ReadWindows.apply(query, key_value, slots, null, first, num_states).flatten(2))

    def windows(self, states: Tensor) -> Tensor:
        """Keys and values of every window in one row: `(batch, num_states + slots + 1, slots * 2 * dim)`."""
        key_value = F.pad(self.to_key_value(states), (0, 0, self.num_slots, self.num_slots))
        windows = key_value.unfold(1, self.num_slots, 1).transpose(2, 3)  # (batch, windows, slots, 2 dim)
        slots = F.pad(self.slot_keys, (0, self.slot_keys.shape[1]))
        return (windows + slots).flatten(2)

    def valid_slots(self, first: Tensor, num_states: Tensor) -> Tensor:
        """`(batch, length, slots)` bool; False where the window reaches outside the row."""
        index = first.unsqueeze(-1) + torch.arange(self.num_slots, device=first.device)
        return (index >= 0) & (index < num_states.view(-1, 1, 1))

    def attend(self, query: Tensor, windows: Tensor, valid: Tensor) -> Tensor:
        """Softmax over slots and the null state: `(tokens, dim)` from `(tokens, slots * 2 * dim)`."""
        tokens, dim = query.shape
        heads = (self.num_heads, dim // self.num_heads)
        keys, values = windows.view(tokens, self.num_slots, 2, *heads).unbind(2)
        null_key, null_value = self.null_key_value.to(query.dtype).view(2, *heads)
        query = query.view(tokens, *heads) / math.sqrt(heads[1])
        scores = (query.unsqueeze(1) * keys).sum(-1)  # (tokens, slots, heads)
        scores = scores.masked_fill(~valid.unsqueeze(-1), -math.inf)
        null_score = (query * null_key).sum(-1).unsqueeze(1)
        weights = torch.cat([scores, null_score], dim=1).softmax(1).unsqueeze(-1)
        read = (weights[:, :-1] * values).sum(1) + weights[:, -1] * null_value
        return read.flatten(1)
