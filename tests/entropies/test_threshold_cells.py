"""One table against scoring and comparing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.context_tables import SURPRISE_STEP
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.entropies.threshold_cells import ThresholdCells
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

TEXT = generate_random_genomic_sequence(3_000, seed=8)
MODELS = {
    "order 0": MarkovEntropy.fit([TEXT], order=0),
    "order 4": MarkovEntropy.fit([TEXT], order=4),
    "protein": MarkovEntropy.fit(["MKVLAAGIVGLCRSTYW" * 20], order=2, alphabet="protein"),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None)
@given(
    codes=st.lists(st.integers(0, 4), max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=4),
    quantile=st.floats(0.0, 1.0),
)
def test_decisions_and_surprises_are_those_of_the_scores(name, codes, cuts, quantile):
    model = MODELS[name]
    symbols = np.array([code if code < 4 else 255 for code in codes], np.uint8)
    scores = model.score(symbols)
    threshold = float(np.quantile(model.entropy_table, quantile))
    stream = ThresholdCells(model, threshold).stream()
    parts = [stream.feed(part) for part in np.split(symbols, sorted(min(cut, symbols.size) for cut in cuts))]
    decisions = np.concatenate([decided for decided, _ in parts])
    surprises = np.concatenate([np.diff(sums) for _, sums in parts])
    assert all(sums[0] == 0 for _, sums in parts)
    assert np.array_equal(decisions, scores.entropies > np.float32(threshold))
    assert np.array_equal(surprises * np.float32(SURPRISE_STEP), scores.surprises)
