"""A stream gives what the whole sequence has: every base once, at its position, in its patch, whatever the chunks."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import count, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import calibrate
from hyena_glt.processing import GenomicStreamProcessor
from hyena_glt.processing.memory_meter import resident_bytes
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

SHAPE = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}
KEYS = {"output", "global_position", "window_size", "compression_ratio"}  # of the guide
WINDOW, OVERLAP = 64, 20
BOUND = 1e-5  # of the largest value: rounding of float32
texts = st.lists(st.sampled_from(["A", "C", "G", "T", "ACG", "N" * 7]), max_size=150).map("".join)
chunk_sizes = st.lists(st.integers(0, 90), min_size=1, max_size=6)
MODES = ["entropy", "static", "static-fractional", "byte", "space"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def patchers():
    genome = [generate_random_genomic_sequence(20_000, seed=1)]
    model = MarkovEntropy.fit(genome, order=4)
    return {
        "entropy": calibrate(genome, entropy_model=model, target_mean_length=6, max_patch_length=32).build(),
        "static": Patcher(patching_mode="static", patch_size=8),
        "static-fractional": Patcher(patching_mode="static", patch_size=4.5),
        "byte": Patcher(patching_mode="byte"),
        "space": Patcher(patching_mode="space", delimiter_chars=["G", "N"], max_patch_length=16),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["causal", "bidirectional"])
def net(request):
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig(**SHAPE, causal=request.param)).eval()


@pytest.fixture(scope="module")
def causal_net():
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig(**SHAPE)).eval()


def chunks_of(text, sizes):
    """The text in chunks whose sizes come round and round."""
    sizes = [*sizes, 1] if not any(sizes) else sizes
    position = 0
    for index in count():
        if position >= len(text):
            return
        size = sizes[index % len(sizes)]
        yield text[position : position + size]
        position += size


def joined(results, read):
    parts = [read(result["output"])[0] for result in results]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def run(net, patcher, chunks, **options):
    return list(GenomicStreamProcessor(net, patcher, WINDOW, OVERLAP).process_stream(chunks, **options))


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10, deadline=None)
@given(text=texts, sizes=chunk_sizes)
def test_no_base_is_doubled_missing_or_shifted(causal_net, patchers, mode, text, sizes):
    offset = 2**33 + 5
    results = run(causal_net, patchers[mode], chunks_of(text, sizes), global_position_offset=offset)
    positions = joined(results, lambda output: output.patch_info["global_positions"])
    assert torch.equal(positions, torch.arange(len(text)) + offset)
    patch_lengths = joined(results, lambda output: output.patch_lengths)
    assert torch.equal(patch_lengths, patchers[mode].patch([text])[0][0])
    assert sum(result["window_size"] for result in results) == len(text)
    for result in results:
        assert result["global_position"] == result["output"].patch_info["boundaries"][0]
        assert 0 < result["window_size"] <= WINDOW - result["context"]
        assert result["context"] <= OVERLAP
        assert result["output"].logits.shape[1] == result["window_size"]
        assert result["compression_ratio"] == result["output"].compression_ratio


@settings(max_examples=10, deadline=None)
@given(text=texts, sizes=chunk_sizes)
def test_results_do_not_depend_on_the_chunks(net, patchers, text, sizes):
    in_chunks = run(net, patchers["entropy"], chunks_of(text, sizes))
    at_once = run(net, patchers["entropy"], text.encode())
    assert len(in_chunks) == len(at_once)
    for one, other in zip(in_chunks, at_once, strict=True):
        assert torch.equal(one["output"].logits, other["output"].logits)
        assert torch.equal(one["output"].last_hidden_state, other["output"].last_hidden_state)


def test_every_key_of_the_guide_is_there(net, patchers):
    (result,) = GenomicStreamProcessor(net, patchers["static"]).process_stream(iter(["ACGTACGT", "AC"]))
    assert set(result) == {*KEYS, "context"}
    assert (result["global_position"], result["window_size"], result["compression_ratio"]) == (0, 10, 5.0)


def test_a_base_is_reported_by_the_window_in_which_it_has_more_past(net, patchers):
    text = generate_random_genomic_sequence(400, seed=3)
    patcher = patchers["entropy"]
    results = run(net, patcher, [text])
    assert len(results) > 5
    edges = torch.cat([patcher.patch_with_boundaries(text)[1], torch.tensor([len(text)])])
    for index, result in enumerate(results):
        assert (result["context"] > 0) == (index > 0)
        begin = result["global_position"] - result["context"]
        end = result["global_position"] + result["window_size"]
        tokens = torch.tensor([[byte + 4 for byte in text[begin:end].encode()]])
        lengths = edges[(edges >= begin) & (edges <= end)].diff().unsqueeze(0)
        following = torch.tensor([end < len(text)])
        with torch.no_grad():
            window = net(tokens, lengths, None, following, global_position_offset=begin)
        assert torch.equal(window.logits[:, result["context"] :], result["output"].logits)


@pytest.mark.parametrize("tail", ["", "ACG"])
def test_what_fits_one_window_equals_the_whole(net, patchers, tail):
    text = generate_random_genomic_sequence(20, seed=2) + "N" * 8 + generate_random_genomic_sequence(20, seed=4) + tail
    patcher = patchers["entropy"]
    (result,) = run(net, patcher, chunks_of(text, [7]))
    with torch.no_grad():
        rows = patcher.patch_with_starts([text])
        tokens = torch.tensor([[byte + 4 for byte in text.encode()]])
        expected = net(tokens, rows.patch_lengths, rows.known_starts)
    assert not bool(rows.known_starts.all())
    difference = (result["output"].logits[:, :-1] - expected.logits[:, :-1]).abs().max()
    assert float(difference) <= BOUND * float(expected.logits.abs().max())


@pytest.mark.parametrize("overlap", [WINDOW, WINDOW + 1, -1])
def test_an_overlap_of_a_window_or_more_is_refused_before_the_stream_is_read(causal_net, patchers, overlap):
    with pytest.raises(ConfigError, match="overlap: expected 0 to 63"):
        GenomicStreamProcessor(causal_net, patchers["static"], WINDOW, overlap)
    chunks = iter(["ACGT"])
    with pytest.raises(ConfigError, match="never end"):
        GenomicStreamProcessor(causal_net, patchers["static"], WINDOW).process_stream(chunks, overlap=overlap)
    assert next(chunks) == "ACGT"


@pytest.mark.parametrize("length", [WINDOW, WINDOW + 44, WINDOW + 2 * 44, WINDOW + OVERLAP, WINDOW + 8])
def test_no_window_is_made_of_overlap_alone(causal_net, patchers, length):
    text = generate_random_genomic_sequence(length)
    results = run(causal_net, patchers["byte"], [text])
    sizes = [result["window_size"] for result in results]
    assert sum(sizes) == length
    assert min(sizes) > 0
    assert sizes[0] == min(length, WINDOW)
    assert all(size == WINDOW - OVERLAP for size in sizes[1:-1])


def test_an_empty_stream_gives_nothing(causal_net, patchers):
    assert run(causal_net, patchers["static"], []) == []
    assert run(causal_net, patchers["static"], ["", b"", torch.zeros(0, dtype=torch.int64)]) == []


def test_small_windows_take_a_smaller_overlap_by_default(causal_net, patchers):
    assert GenomicStreamProcessor(causal_net, patchers["static"]).overlap == 128
    assert GenomicStreamProcessor(causal_net, patchers["static"], 64).overlap == 8
    assert GenomicStreamProcessor(causal_net, patchers["static"], 100_000).overlap == 128


def test_the_context_gives_way_where_the_next_patch_needs_the_room(causal_net):
    patcher = Patcher(patching_mode="space", delimiter_chars=["G"])
    text = "AAAG" * 10 + "A" * 55 + "G" + "AAAG" * 4
    results = run(causal_net, patcher, chunks_of(text, [5]))
    assert [(r["global_position"], r["window_size"], r["context"]) for r in results] == [
        (0, 40, 0),
        (40, 56, 8),
        (96, 16, 0),
    ]


def test_a_patch_longer_than_a_window_is_refused_at_its_place(causal_net):
    patcher = Patcher(patching_mode="space", delimiter_chars=["G"])
    stream = GenomicStreamProcessor(causal_net, patcher, WINDOW).process_stream("A" for _ in count())
    with pytest.raises(ConfigError, match=r"window_size: .* position 0 .*max_patch_length of at most 64"):
        next(stream)


def test_an_endless_stream_gives_results_as_it_comes(causal_net, patchers):
    taken = count()

    def endless():
        for index in taken:
            yield generate_random_genomic_sequence(50, seed=index)

    stream = GenomicStreamProcessor(causal_net, patchers["static"], WINDOW, OVERLAP).process_stream(endless())
    assert len(list(islice(stream, 10))) == 10
    assert next(taken) <= (10 * WINDOW) // 50 + 2


def test_an_endless_stream_takes_constant_memory(patchers):
    net = HyenaGLT(HyenaGLTConfig(**{**SHAPE, "hidden_size": 8, "num_layers": 1, "local_hidden_size": 8}))
    processor = GenomicStreamProcessor(net, patchers["static"], window_size=8192, overlap=512)
    chunk = generate_random_genomic_sequence(4096)
    stream = processor.process_stream(chunk for _ in count())
    num_bases = 0

    def run_to(length):
        nonlocal num_bases
        while num_bases < length:
            num_bases += next(stream)["window_size"]

    run_to(50_000)
    tracemalloc.start()
    run_to(300_000)
    gc.collect()
    early, early_resident = tracemalloc.get_traced_memory()[0], resident_bytes()
    run_to(1_300_000)
    gc.collect()
    late, late_resident = tracemalloc.get_traced_memory()[0], resident_bytes()
    tracemalloc.stop()
    assert late - early < 250_000  # a quarter of a byte for each of the bases between
    assert late_resident - early_resident < 64 << 20  # the logits of eight windows; 128 went by
    assert processor.position_tracker.end >= 1_250_000


def test_the_tracker_says_where_the_stream_is(causal_net, patchers):
    processor = GenomicStreamProcessor(causal_net, patchers["byte"], WINDOW, OVERLAP)
    text = generate_random_genomic_sequence(150)
    stream = processor.process_stream([text], global_position_offset=1000)
    next(stream)
    assert processor.position_tracker.position == 1000
    next(stream)
    assert (processor.position_tracker.position, processor.position_tracker.num_covered) == (1044, OVERLAP)
    list(stream)
    assert processor.position_tracker.position == processor.position_tracker.end == 1150


def test_two_streams_of_one_processor_do_not_disturb_each_other(causal_net, patchers):
    processor = GenomicStreamProcessor(causal_net, patchers["byte"], WINDOW, OVERLAP)
    text = generate_random_genomic_sequence(200)
    pairs = zip(processor.process_stream([text]), processor.process_stream([text]), strict=True)
    for one, other in pairs:
        assert one["global_position"] == other["global_position"]


def test_streams_of_bytes_and_tokens_are_those_of_text(causal_net, patchers):
    text = generate_random_genomic_sequence(150, seed=9)
    expected = run(causal_net, patchers["entropy"], [text])
    tokens = torch.tensor([byte + 4 for byte in text.encode()])
    for chunks in ([text.encode()], [tokens[:70], tokens[70:]], text, tokens):
        found = run(causal_net, patchers["entropy"], chunks)
        assert all(torch.equal(a["output"].logits, b["output"].logits) for a, b in zip(found, expected, strict=True))


def test_positions_are_there_unless_switched_off(causal_net, patchers):
    (result,) = run(causal_net, patchers["static"], ["ACGT"], return_position_info=False)
    assert set(result["output"].patch_info) == {"patch_lengths", "boundaries"}


def test_patchers_that_need_the_future_are_refused(net, patchers):
    with pytest.raises(ConfigError, match="which can be streamed"):
        GenomicStreamProcessor(HyenaGLT(HyenaGLTConfig(**SHAPE, boundaries="learned")))
    if not net.config.causal:  # a causal net warns of them as well
        with pytest.raises(ConfigError, match="which can be streamed"):
            GenomicStreamProcessor(net, lambda sequence: [sequence])
        top_k = Patcher(patching_mode="entropy", entropy_model=patchers["entropy"].entropy_model, threshold=None)
        with pytest.raises(ConfigError, match="whole sequence"):
            run(net, top_k, [])
        with pytest.raises(ConfigError, match="'auto'"):
            run(net, Patcher(patching_mode="entropy", threshold=1.2), ["ACGT"])


@pytest.mark.parametrize("chunks", [5, [5], [["A"]], [torch.zeros(2, 2, dtype=torch.int64)], [torch.tensor([-1])]])
def test_what_is_no_chunk_is_refused(causal_net, patchers, chunks):
    with pytest.raises(PatchingError):
        run(causal_net, patchers["static"], chunks)


def test_a_negative_offset_or_window_is_refused(causal_net, patchers):
    with pytest.raises(PatchingError, match="position"):
        run(causal_net, patchers["static"], ["A"], global_position_offset=-1)
    with pytest.raises(ConfigError, match="window_size"):
        GenomicStreamProcessor(causal_net, patchers["static"], 0)
