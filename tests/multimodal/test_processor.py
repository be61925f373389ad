"""The guide's multi-modal class: every name of it, and its faults of DESIGN.md section 12 undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import AlphabetError, AnnotationError, ConfigError
from hyena_glt.model import HyenaGLTOutput
from hyena_glt.multimodal import AlignedOutputs, MultiModalGenomicProcessor, RnaStructure
from hyena_glt.multimodal.alignment import PatchStates
from hyena_glt.tokens import train_bpe

GUIDE_DATA = {
    "dna": ["ATGGCGTTAGCCAAAGGTCCA", "GCTAGCTAGCTAGCTAGCTA"],
    "protein": ["MAQRQSVVAGNTLHTLDHGDPQL", "AGNTLHTLDHGDPQLMAQRQSVV"],
    "rna": ["AUGCCAUUAGCCAAAGGUCC", "GCUAGCUAGCUAGCUAGCUA"],
}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_the_guides_example_runs(small_config):
    multimodal_processor = MultiModalGenomicProcessor(small_config)
    results = multimodal_processor.process_multimodal_data(GUIDE_DATA)
    assert set(results) == {"dna", "protein", "rna", "aligned"}
    for modality, outputs in results.items():
        if modality != "aligned":
            assert all(isinstance(output, HyenaGLTOutput) for output in outputs)
            assert np.mean([out.compression_ratio for out in outputs]) > 1


def test_attributes_of_the_guide_are_there(small_config):
    processor = MultiModalGenomicProcessor(small_config)
    assert set(processor.processors) == {"dna", "rna", "protein"}
    assert all(isinstance(net, HyenaGLT) for net in processor.processors.values())
    assert processor.base_config == small_config
    sizes = {name: net.config.genomic_vocab_size for name, net in processor.processors.items()}
    assert sizes == {"dna": 4, "rna": 4, "protein": 20}
    before = processor.processors["dna"]
    processor.setup_specialized_processors()
    assert processor.processors["dna"] is not before


def test_a_mapping_of_fields_is_a_base_config(small_config):
    processor = MultiModalGenomicProcessor(small_config.model_dump(), modalities=["dna"])
    assert processor.processors["dna"].config.hidden_size == small_config.hidden_size
    with pytest.raises(ConfigError, match="unknown key; did you mean hidden_size"):
        MultiModalGenomicProcessor({"hiden_size": 24})


def test_outputs_are_really_aligned(small_processor):
    """The guide's `align_multimodal_outputs` is `pass`, so `results['aligned']` is None there."""
    results = small_processor().process_multimodal_data(GUIDE_DATA)
    aligned = results["aligned"]
    assert isinstance(aligned, AlignedOutputs)
    assert aligned.pooled["dna"].shape == (2, 16)
    assert len(aligned.attention) == 6
    again = small_processor().align_multimodal_outputs(results)
    torch.testing.assert_close(again.pooled["rna"], aligned.pooled["rna"])


def test_one_modality_or_no_wish_gives_no_alignment(small_processor):
    processor = small_processor()
    assert set(processor.process_multimodal_data({"dna": ["ACGT"]})) == {"dna"}
    assert set(processor.process_multimodal_data(GUIDE_DATA, align_outputs=False)) == set(GUIDE_DATA)


def test_dna_is_not_collapsed_by_a_threshold_for_text(small_processor, made_pairs):
    """The guide compares 1.335 nats with a *rise* of the entropy: all patches of 4,096 bases are cut by the cap."""
    dna = b"".join(pair.dna for pair in made_pairs(4, 341))[:4096]
    (output,) = small_processor(modalities=["dna"]).process_multimodal_data({"dna": [dna]})["dna"]
    assert 6 <= output.compression_ratio <= 12
    assert int(output.patch_lengths.max()) <= 64


def test_letters_beside_the_four_have_room(small_processor):
    """The guide's vocabulary of 4 has no room for N; soft-masked bases fold."""
    processor = small_processor()
    out = processor.process_multimodal_data({"dna": ["ACGTNNRYacgt"], "protein": ["MXB*"], "rna": ["ACGUN"]})
    assert all(bool(out[name][0].last_hidden_state.isfinite().all()) for name in ("dna", "protein", "rna"))


def test_plain_rna_is_cut_too(small_processor):
    """The guide cuts RNA at brackets, which a sequence does not hold: all of it would be one patch."""
    results = small_processor().process_multimodal_data({"rna": ["GCUAGCUAGCAAUCGGAUUCG" * 8]})
    assert results["rna"][0].patch_lengths.shape[1] > 5


@pytest.mark.parametrize(
    "item",
    [
        ("GGGAAACCC", "(((...)))"),
        "GGGAAACCC (((...)))",
        "GGGAAACCC\n(((...)))",
        RnaStructure("hairpin", "GGGAAACCC", "(((...)))"),
        ("GGGAAACCC", "[[[---]]]"),
    ],
)
def test_brackets_give_the_boundaries_of_rna(small_processor, item):
    results = small_processor().process_multimodal_data({"rna": [item, "ACGU"]})
    assert results["rna"][0].patch_lengths.tolist() == [[3, 3, 3]]


def test_the_cap_holds_for_structures(small_processor):
    processor = small_processor()
    (output,) = processor.process_multimodal_data({"rna": [("A" * 130, "." * 130)]})["rna"]
    assert output.patch_lengths.tolist() == [[64, 64, 2]]


def test_results_do_not_depend_on_batch_or_order(small_processor):
    processor = small_processor()
    data = {"rna": ["GCUA" * 9, ("GGGAAACCC", "(((...)))"), "", "A"], "dna": ["ACGTAC" * 5, "TTGA", "ACGT" * 11, ""]}
    together = processor.process_multimodal_data(data)
    alone = processor.process_multimodal_data(data, batch_size=1)
    for name in data:
        for one, other in zip(together[name], alone[name], strict=True):
            assert torch.equal(one.patch_lengths, other.patch_lengths)
            torch.testing.assert_close(one.last_hidden_state, other.last_hidden_state, **CLOSE)
        torch.testing.assert_close(together["aligned"].pooled[name], alone["aligned"].pooled[name], **CLOSE)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text("ACGT", max_size=30), min_size=1, max_size=4))
def test_patch_states_are_those_of_the_outputs(sequences):
    config = HyenaGLTConfig.preset("tiny", hidden_size=24, num_layers=1, local_hidden_size=16)
    processor = MultiModalGenomicProcessor(config, modalities=["dna"], seed=0)
    states = processor.patch_states("dna", sequences)
    outputs = processor.process_multimodal_data({"dna": sequences})["dna"]
    for row, output in enumerate(outputs):
        patches = output.patch_lengths.shape[1]
        torch.testing.assert_close(states.states[row, :patches], output.last_hidden_state[0], **CLOSE)
        assert states.patch_lengths[row, :patches].tolist() == output.patch_lengths[0].tolist()


def test_vectors_of_embed_are_those_of_the_alignment(small_processor):
    processor = small_processor()
    aligned = processor.process_multimodal_data(GUIDE_DATA)["aligned"]
    torch.testing.assert_close(processor.embed("dna", GUIDE_DATA["dna"]), aligned.vectors["dna"], **CLOSE)


def test_seeds_give_weights_and_leave_the_global_numbers_alone(small_config):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = (MultiModalGenomicProcessor(small_config, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for (_, a), (_, b) in zip(first.modules(), second.modules(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_fitted_patchers_reach_the_mean_length(small_processor, made_pairs):
    processor, pairs = small_processor(), made_pairs(8, 200)
    dna = [pair.dna for pair in pairs]
    found = processor.fit_patchers({"dna": dna}, target_mean_length=10)
    assert found["dna"].calibration.mean_length == pytest.approx(10, rel=0.05)
    outputs = processor.process_multimodal_data({"dna": dna})["dna"]
    assert np.mean([out.compression_ratio for out in outputs]) == pytest.approx(10, rel=0.1)


def test_a_given_patcher_and_a_tokenizer_are_used(small_config, tmp_path, made_pairs):
    path = tmp_path / "tokenizer.json"
    proteins = [pair.protein for pair in made_pairs(8, 100)]
    train_bpe(proteins, vocab_size=60, alphabet="protein").save(str(path))
    patcher = Patcher(patching_mode="static", patch_size=5)
    processor = MultiModalGenomicProcessor(small_config, patchers={"dna": patcher}, protein_tokenizer=path)
    assert processor.processors["dna"].external_patcher is patcher
    results = processor.process_multimodal_data({"dna": ["ACGTACGTAC"], "protein": [proteins[0]]})
    assert results["dna"][0].patch_lengths.tolist() == [[5, 5]]
    assert len(set(results["protein"][0].patch_lengths[0].tolist())) > 1


def test_no_sequences_give_no_outputs(small_processor):
    results = small_processor().process_multimodal_data({"dna": [], "protein": []})
    assert results["dna"] == []
    assert results["aligned"].pooled["dna"].shape == (0, 16)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"lipid": ["AC"]}, ConfigError, "unsupported data type: .* got 'lipid'"),
        ({"dna": 5}, ConfigError, "dna: expected a list of sequences, got int"),
        ({"dna": ["AC", 5]}, ConfigError, "dna sequence 1: expected str or bytes, got int"),
        ({"dna": ["AC", "A-C"]}, AlphabetError, "dna sequence 1: position 2"),
        ({"dna": ["MKVL"]}, AlphabetError, "dna sequence 0: position 4"),
        ({"dna": ["AC"], "protein": []}, ConfigError, "got dna 1, protein 0"),
        ({"rna": [("ACG", "((.)")]}, AnnotationError, "rna sequence 0: structure: expected 3 symbols"),
        ({"rna": [("ACGU", "((.)")]}, AnnotationError, "rna sequence 0: structure: .* at 1 is never closed"),
        ({"rna": [("ACGU", "....", "x")]}, ConfigError, r"expected \(sequence, structure\)"),
        ({"rna": ["((..))"]}, AlphabetError, "rna sequence 0: position 1"),
    ],
)
def test_wrong_data_is_one_clear_error(small_processor, data, error, message):
    with pytest.raises(error, match=message) as caught:
        small_processor().process_multimodal_data(data)
    assert isinstance(caught.value, ValueError)  # the guide's class


def test_a_single_text_is_one_sequence_and_not_its_letters(small_processor):
    assert len(small_processor().process_multimodal_data({"dna": "ACGT"})["dna"]) == 1


def test_wrong_options_are_refused(small_config, small_processor):
    with pytest.raises(ConfigError, match="modalities: expected some of dna, rna, protein, got 'fat'"):
        MultiModalGenomicProcessor(small_config, modalities=["fat"])
    with pytest.raises(ConfigError, match="modalities: expected at least one"):
        MultiModalGenomicProcessor(small_config, modalities=[])
    with pytest.raises(ConfigError, match="patchers: expected some of dna, got 'rna'"):
        MultiModalGenomicProcessor(small_config, modalities=["dna"], patchers={"rna": None})
    with pytest.raises(ConfigError, match="batch_size"):
        small_processor().process_multimodal_data({"dna": ["AC"]}, batch_size=0)
    with pytest.raises(ConfigError, match="expected one of dna, got 'protein'"):
        small_processor(modalities=["dna"]).embed("protein", ["M"])


def test_real_structures_run(small_processor, data):
    from itertools import islice

    from hyena_glt.multimodal import read_dot_bracket

    rnas = list(islice(read_dot_bracket(data("protein_rna/archiveII_shared_families.db.gz")), 4))
    states = small_processor(modalities=["rna"]).patch_states("rna", rnas)
    assert isinstance(states, PatchStates)
    assert states.patch_lengths.sum(1).tolist() == [len(rna.sequence) for rna in rnas]
