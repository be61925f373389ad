"""A shard's rows are those of its genomes' records, whichever rule cuts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.patching import calibrate
from hyena_glt.processing.distributed_plan import Part, Plan, Shard, list_genomes
from hyena_glt.processing.distributed_shards import (
    EmbedOptions,
    ShardMaker,
    capped_patcher,
    note_file,
    read_note,
    shard_file,
    streaming_model,
)
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

OPTIONS = EmbedOptions(window=256, batch_size=3)
PATCHERS = {
    "static": lambda: Patcher(patching_mode="static", patch_size=7),
    "entropy": lambda: calibrate([generate_random_genomic_sequence(4000, 9)], target_mean_length=8).build(),
    "auto": lambda: Patcher(patching_mode="entropy", entropy_model="auto", threshold=1.36),
}


def small_net(patcher: Patcher) -> HyenaGLT:
    config = HyenaGLTConfig.preset(
        "tiny", causal=False, genomic_vocab_size=4, alphabet="dna", hidden_size=32, local_hidden_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HyenaGLT(config, patcher).eval()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def genomes(tmp_path):
    letters = [generate_random_genomic_sequence(length, seed) for seed, length in enumerate((700, 90, 1500))]
    (tmp_path / "one.fa").write_text(f">a\n{letters[0]}\n>n\n{'N' * 300}\n>b\n{letters[1]}{'N' * 40}{letters[0]}\n")
    (tmp_path / "two.fa").write_text(f">a\n{letters[2]}\n")
    return list_genomes([tmp_path / "one.fa", tmp_path / "two.fa"])


def maker(net, folder: Path, genomes, *shards: Shard, options: EmbedOptions = OPTIONS) -> ShardMaker:
    folder.mkdir(exist_ok=True)
    return ShardMaker(net, folder, Plan({"model_sha256": "0" * 64}, shards), genomes, options)


WHOLE = Shard((Part(0, 0, None), Part(1, 0, None)), 0)


@pytest.mark.parametrize("kind", sorted(PATCHERS))
def test_a_row_is_the_mean_of_the_patch_states_of_its_record(tmp_path, genomes, kind):
    """Records that fit in a window are embedded by one forward of the net's own."""
    options = EmbedOptions(window=4096, batch_size=2)
    net = small_net(PATCHERS[kind]())
    maker(net, tmp_path / "out", genomes, WHOLE, options=options).make(0)
    rows = pq.ParquetFile(shard_file(tmp_path / "out", 0)).read().to_pylist()
    assert [(row["genome"], row["record"], row["name"]) for row in rows] == [
        ("one", 0, "a"),
        ("one", 2, "b"),
        ("two", 0, "a"),
    ]
    net.external_patcher = capped_patcher(net, 4096)
    sequences = Path(genomes[0].path).read_text().split(">")[1:] + Path(genomes[1].path).read_text().split(">")[1:]
    sequences = [text.split("\n")[1] for text in sequences if not text.startswith("n")]
    for row, sequence in zip(rows, sequences, strict=True):
        if kind == "static" and "N" in sequence:
            continue  # a run of N is a patch of its own in a genome under every rule, but not in a single sequence
        with torch.inference_mode():
            states = net.forward_with_patching(sequence).last_hidden_state[0]
        assert (row["start"], row["end"], row["patches"]) == (0, len(sequence), len(states))
        np.testing.assert_allclose(row["embedding"], states.double().mean(0).float().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(PATCHERS))
@pytest.mark.parametrize("per_record", [True, False])
def test_a_genome_cut_at_records_gives_the_rows_of_the_whole(tmp_path, genomes, kind, per_record):
    options = EmbedOptions(window=256, batch_size=1, per_record=per_record)
    net = small_net(PATCHERS[kind]())
    maker(net, tmp_path / "whole", genomes, WHOLE, options=options).make(0)
    pieces = maker(
        net,
        tmp_path / "cut",
        genomes,
        Shard((Part(0, 0, 1),), 0),
        Shard((Part(0, 1, 2),), 0),
        Shard((Part(0, 2, None), Part(1, 0, None)), 0),
        options=options,
    )
    rows = []
    for number in range(3):
        assert pieces.ensure(number)
        assert not pieces.ensure(number)
        rows += pq.ParquetFile(shard_file(tmp_path / "cut", number)).read().to_pylist()
    assert rows == pq.ParquetFile(shard_file(tmp_path / "whole", 0)).read().to_pylist()
    assert len(rows) == (3 if per_record else 13)


def test_a_shard_is_trusted_by_hashes_alone(tmp_path, genomes):
    own = maker(small_net(PATCHERS["static"]()), tmp_path / "out", genomes, WHOLE)
    assert not own.is_whole(0)
    own.make(0)
    assert own.is_whole(0)
    path, note = shard_file(own.folder, 0), note_file(own.folder, 0)
    whole, said = path.read_bytes(), note.read_bytes()
    for damage in (
        lambda: path.write_bytes(whole[:-1]),
        lambda: path.write_bytes(whole[:-9] + b"x" + whole[-8:]),
        path.unlink,
        lambda: note.write_bytes(said[:-3]),
        lambda: note.write_text('{"sha256": 1}'),
        note.unlink,
    ):
        damage()
        assert not own.is_whole(0)
        path.write_bytes(whole)
        note.write_bytes(said)
    assert own.is_whole(0)
    path.unlink()
    assert own.ensure(0)
    assert path.read_bytes() == whole
    assert read_note(own.folder, 0)["rows"] == 3


def test_a_genome_that_has_changed_is_refused(tmp_path, genomes):
    net = small_net(PATCHERS["static"]())
    maker(net, tmp_path / "out", genomes, WHOLE).make(0)
    genomes[1].path.write_text(">a\nACGT\n")
    with pytest.raises(ConfigError, match=r"two\.fa: the genome has changed since shard-000000\.parquet"):
        maker(net, tmp_path / "out", genomes, WHOLE).is_whole(0)


def test_a_malformed_genome_leaves_nothing(tmp_path, genomes):
    genomes[1].path.write_text(">a\nAC GT\n")
    own = maker(small_net(PATCHERS["static"]()), tmp_path / "out", genomes, WHOLE)
    with pytest.raises(DataError, match=r"two\.fa:2"):
        own.make(0)
    assert list(own.folder.iterdir()) == []


def test_a_vector_that_is_not_finite_is_never_written(tmp_path, genomes):
    net = small_net(PATCHERS["static"]())
    with torch.no_grad():
        next(iter(net.trunk.parameters())).fill_(float("nan"))
    own = maker(net, tmp_path / "out", genomes, WHOLE)
    with pytest.raises(DataError, match="not finite"):
        own.make(0)
    assert list(own.folder.iterdir()) == []


def test_patchers_that_cannot_be_used_are_refused():
    overlapping = Patcher(patching_mode="static", patch_size=8, overlap=2)
    for patcher, message in ((None, "NoneType"), (object(), "object"), (overlapping, "overlap")):
        net = small_net(PATCHERS["static"]())
        net.external_patcher = patcher
        with pytest.raises(ConfigError, match=message):
            capped_patcher(net, 256)
    assert capped_patcher(small_net(PATCHERS["static"]()), 100).args.max_patch_length == 100
    assert streaming_model(PATCHERS["auto"](), "dna") is None
    assert streaming_model(PATCHERS["entropy"](), "dna").name == "markov"
    for name in ("window", "batch_size", "threads"):
        with pytest.raises(ConfigError, match=f"{name}: expected a whole number of at least 1, got 0"):
            EmbedOptions(**{name: 0})
