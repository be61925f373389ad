from __future__ import annotations

import gzip
import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, ModelFileError, PatchingError
from hyena_glt.patching import Patcher, ScanRule, calibrate, calibrate_threshold, count_patches
from hyena_glt.patching.calibration import (
    ContigThreshold,
    calibrate_each,
    calibrate_rule,
    contig_thresholds_file,
    load_contig_thresholds,
    save_contig_thresholds,
)
from hyena_glt.patching.saved import save_patcher
from hyena_glt.patching.scan import ScoreRows
from hyena_glt.patching.threshold_search import decisive_values, middle_of_step, threshold_curve


@pytest.fixture(scope="module")
def ecoli(data):
    with gzip.open(data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz")) as file:
        genome = b"".join(file.read().split(b"\n")[1:])
    model = MarkovEntropy.fit([genome], order=8)
    return model.entropies(genome)


def mean_length(args, scores):
    lengths, _ = args.build().patch(torch.full((1, scores.size), 69), entropies=torch.from_numpy(scores)[None])
    return scores.size / lengths.shape[1]


@pytest.mark.parametrize("rule", ["threshold", "monotonicity", "dual"])
@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("target", [4, 8, 16, 64])
def test_the_mean_on_a_bacterium_is_the_wanted_one(ecoli, rule, capped, target):
    cap = 4 * target if capped else None
    args = calibrate([ecoli], target_mean_length=target, max_patch_length=cap, rule=rule)
    assert mean_length(args, ecoli) == pytest.approx(target, rel=0.02)
    assert args.calibration.mean_length == pytest.approx(mean_length(args, ecoli))


def test_the_mean_is_the_wanted_one_with_a_minimum(ecoli):
    args = calibrate([ecoli], target_mean_length=12, min_patch_length=4, max_patch_length=30)
    assert mean_length(args, ecoli) == pytest.approx(12, rel=0.02)
    assert (args.min_patch_length, args.max_patch_length) == (4, 30)


def test_sequences_are_scored_by_one_model_of_all_of_them():
    random = np.random.default_rng(8)
    texts = ["".join(random.choice(list("ACGT"), 3000, p=[0.4, 0.1, 0.1, 0.4])) + "N" * 40 for _ in range(3)]
    args = calibrate(iter(texts), target_mean_length=6, max_patch_length=24)
    lengths, _ = args.build().patch(texts)
    assert sum(map(len, texts)) / int((lengths > 0).sum()) == pytest.approx(6, rel=0.02)
    assert args.entropy_model.name == args.calibration.entropy_model == "markov"
    assert args.calibration.num_tokens == sum(map(len, texts))
    tokens = [torch.tensor(list(text.encode())) + 4 for text in texts]
    assert calibrate(tokens, target_mean_length=6, max_patch_length=24).threshold == args.threshold
    held = calibrate(texts, entropy_model=args.entropy_model, target_mean_length=6, max_patch_length=24)
    assert held.threshold == args.threshold
    assert held.entropy_model is args.entropy_model


def test_one_sequence_need_not_be_a_list():
    text = "ACGTTGCATTAGC" * 60
    assert calibrate(text, target_mean_length=5).threshold == calibrate([text], target_mean_length=5).threshold
    scores = np.random.default_rng(1).random(500, np.float32)
    one = calibrate(scores, target_mean_length=5)
    assert one.threshold == calibrate(torch.from_numpy(scores)[None], target_mean_length=5).threshold


def test_other_fields_go_into_the_arguments():
    scores = np.random.default_rng(1).random(500, np.float32)
    args = calibrate([scores], target_mean_length=9, rule="dual", threshold_add=0.1, patching_batch_size=3)
    assert (args.threshold_add, args.patching_batch_size, args.monotonicity) == (0.1, 3, False)
    assert calibrate([scores], target_mean_length=9, rule="dual").threshold_add == 0.0
    assert calibrate([scores], target_mean_length=9, rule="monotonicity").monotonicity is True


def test_forced_starts_count():
    scores = np.random.default_rng(1).random(4000, np.float32)
    forced = np.zeros(4000, bool)
    forced[::20] = True
    threshold = calibrate_threshold([scores], [forced], target_mean_length=10)
    rule = ScanRule("threshold", threshold)
    assert 4000 / count_patches(scores, forced, rule) == pytest.approx(10, rel=0.02)
    assert 4000 / count_patches(scores, None, rule) > 11


@given(
    st.lists(st.integers(3, 60), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.floats(1, 30),
    st.sampled_from([(None, None), (None, 8), (2, None), (3, 9)]),
    st.sampled_from(["threshold", "monotone", "dual"]),
)
def test_no_other_threshold_comes_nearer(sizes, seed, target, limits, mode):
    random = np.random.default_rng(seed)
    scores = [(random.integers(0, 12, size) / 8).astype(np.float32) for size in sizes]
    rule = ScanRule(mode, 0.0, 0.0 if mode == "dual" else None, None, *limits)
    values = decisive_values(ScoreRows(scores), rule)
    if not values.size:
        return
    found = calibrate_rule(scores, rule=rule, target_mean_length=target)
    candidates = [float(value) for value in np.unique(values)] + [float(values.min()) - 1]
    counted = ScoreRows(scores)
    means = {
        threshold: sum(sizes) / counted.count_patches(ScanRule(mode, threshold, rule.threshold_add, None, *limits))
        for threshold in [*candidates, found.threshold]
    }
    assert means[found.threshold] == found.mean_length
    if limits[0] is None:  # with a minimum the count need not fall with the threshold
        distances = [abs(math.log(mean / target)) for mean in means.values()]
        assert abs(math.log(found.mean_length / target)) <= min(distances) + 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_mean_length": 100, "max_patch_length": 64}, "expected between 1.00 and 60.61"),
        ({"target_mean_length": 70, "max_patch_length": 64}, "expected between"),
        ({"target_mean_length": 2, "min_patch_length": 3}, "expected between 3.00 and"),
        ({"target_mean_length": 1.2, "rule": "dual"}, "expected between"),
        ({"target_mean_length": 0.5}, "at least 1 token"),
        ({"target_mean_length": math.nan}, "at least 1 token"),
        ({"target_mean_length": math.inf}, "at least 1 token"),
        ({"target_mean_length": 8, "rule": "adaptive"}, "rule: expected one of"),
        ({"target_mean_length": 8, "max_patch_length": 0}, "max_patch_length"),
        ({"target_mean_length": 8, "treshold_add": 1.0}, "treshold_add: unknown key"),
    ],
)
def test_targets_out_of_reach_name_the_range(options, message):
    scores = np.random.default_rng(1).random(2000, np.float32)
    with pytest.raises(ConfigError, match=message):
        calibrate([scores], **options)


def test_equal_scores_cannot_be_told_apart():
    with pytest.raises(ConfigError, match=r"too many scores are equal; the nearest mean lengths are 1\.00 and 500\.00"):
        calibrate([np.ones(1000, np.float32)], target_mean_length=8)


@pytest.mark.parametrize("scores", [[], [np.zeros(0, np.float32)], [np.zeros(2, np.float32)]])
def test_nothing_to_choose_among_is_refused(scores):
    with pytest.raises(ConfigError, match="expected"):
        calibrate(scores, target_mean_length=8)


def test_nan_is_refused():
    with pytest.raises(PatchingError, match="NaN"):
        calibrate([np.full(50, np.nan, np.float32)], target_mean_length=8)


def test_the_nearest_threshold_is_found_where_the_target_is_out_of_reach():
    scores = np.random.default_rng(1).random(2000, np.float32)
    rule = ScanRule("threshold", 0.0, max_patch_length=10)
    found = calibrate_rule([scores], rule=rule, target_mean_length=50)
    assert found.mean_length == found.reachable[1] < 10.01
    assert calibrate_rule([scores], rule=rule, target_mean_length=1).mean_length == pytest.approx(1)
    with pytest.raises(ConfigError, match="mode threshold, monotone or dual"):
        calibrate_rule([scores], rule=ScanRule("byte"), target_mean_length=5)


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30), st.data())
def test_the_threshold_stands_in_the_middle_of_its_step(values, data):
    values = np.array(values, np.float32)
    at = np.float32(data.draw(st.sampled_from([*values.tolist(), float(values.min()) - 1])))
    middle = middle_of_step(values, at)
    assert ((values > np.float32(middle)) == (values > at)).all()
    below, above = values[values <= at], values[values > at]
    if below.size and above.size and np.nextafter(below.max(), np.float32(9)) < above.min():
        assert below.max() < middle < above.min()


def test_noise_in_the_last_bit_moves_no_boundary(ecoli):
    scores = ecoli[:200_000]
    args = calibrate([scores], target_mean_length=16)
    tokens = torch.full((1, scores.size), 69)
    expected, _ = Patcher(args).patch(tokens, entropies=torch.from_numpy(scores)[None])
    chosen = np.unique(scores)
    nearest = np.abs(chosen - args.threshold).min()
    noisy = scores + np.float32(nearest / 4)
    assert torch.equal(Patcher(args).patch(tokens, entropies=torch.from_numpy(noisy)[None])[0], expected)


def texts_of_two_kinds():
    random = np.random.default_rng(12)
    rich, poor = [0.1, 0.4, 0.4, 0.1], [0.35, 0.15, 0.15, 0.35]
    kinds = {"chr1": poor, "chr2": poor, "phage": rich}
    return {name: "".join(random.choice(list("ACGT"), 9000, p=odds)) for name, odds in kinds.items()}


def test_each_sequence_gets_the_mean_it_was_promised():
    texts = texts_of_two_kinds()
    each = calibrate_each(texts, target_mean_length=8, max_patch_length=40)
    assert list(each) == list(texts)
    for name, args in each.items():
        lengths, _ = args.build().patch(texts[name])
        assert len(texts[name]) / lengths.shape[1] == pytest.approx(8, rel=0.02)
        alone = calibrate(texts[name], entropy_model=args.entropy_model, target_mean_length=8, max_patch_length=40)
        assert args == alone
        assert args.calibration.data_sha256 == hashlib.sha256(texts[name].encode() + b"\xff\xff").hexdigest()
    assert len({id(args.entropy_model) for args in each.values()}) == 1
    assert len({args.threshold for args in each.values()}) == 3


@pytest.mark.parametrize("as_function", [False, True])
def test_a_domain_is_calibrated_on_all_of_its_sequences(as_function):
    texts = texts_of_two_kinds()
    domains = {"chr1": "chromosome", "chr2": "chromosome", "phage": "phage"}
    by = domains.__getitem__ if as_function else domains
    found = calibrate_each(iter(texts.items()), by=by, target_mean_length=10, rule="monotonicity")
    assert list(found) == ["chromosome", "phage"]
    args = found["chromosome"]
    rows = [texts["chr1"], texts["chr2"]]
    lengths, _ = args.build().patch(rows)
    assert sum(map(len, rows)) / int((lengths > 0).sum()) == pytest.approx(10, rel=0.02)
    assert args.calibration.num_tokens == 18_000
    assert args.monotonicity


def test_a_model_of_each_domain_only_where_it_is_asked_for():
    texts = texts_of_two_kinds()
    own = calibrate_each(texts, shared_model=False, target_mean_length=8)
    assert len({id(args.entropy_model) for args in own.values()}) == 3
    assert own["phage"].model_dump() == calibrate(texts["phage"], target_mean_length=8).model_dump()
    scores = {"a": np.random.default_rng(1).random(900, np.float32)}
    assert calibrate_each(scores, target_mean_length=5)["a"].entropy_model is None
    given = MarkovEntropy.fit(texts.values(), order=3)
    assert calibrate_each(texts, entropy_model=given, target_mean_length=8)["chr1"].entropy_model is given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": {"chr1": "a", "chr2": "a"}}, "by: expected a domain for each name, got none for 'phage'"),
        ({"entropy_model": "auto", "shared_model": False}, "shared_model: expected True"),
        ({"target_mean_length": 30, "max_patch_length": 20}, "chr1: target_mean_length: expected between"),
        ({"treshold_add": 1.0}, "chr1: treshold_add: unknown key"),
    ],
)
def test_what_is_wrong_with_a_domain_is_said_with_its_name(options, message):
    with pytest.raises(ConfigError, match=message):
        calibrate_each(texts_of_two_kinds(), **{"target_mean_length": 8, **options})


def test_a_name_given_twice_is_refused():
    with pytest.raises(ConfigError, match="'a' again"):
        calibrate_each([("a", "ACGT" * 9), ("a", "ACGT" * 9)], target_mean_length=4)


@pytest.fixture
def saved_contigs(tmp_path):
    texts = texts_of_two_kinds()
    whole = calibrate(texts.values(), target_mean_length=8, max_patch_length=40)
    each = calibrate_each(texts, entropy_model=whole.entropy_model, target_mean_length=8, max_patch_length=40)
    contigs = {n: ContigThreshold(threshold=a.threshold, calibration=a.calibration) for n, a in each.items()}
    save_patcher(tmp_path / "p.json", whole)
    place = save_contig_thresholds(tmp_path / "p.json", contigs, {"command": "x"})
    return place, whole, each


def test_thresholds_of_contigs_are_read_as_they_were_written(saved_contigs):
    place, whole, each = saved_contigs
    assert place.name == "p.contigs.json"
    assert place == contig_thresholds_file(place.with_name("p.json"))
    found = load_contig_thresholds(place)
    for name, args in each.items():
        assert found.args_for(name).model_dump() == args.model_dump()
        assert found.args_for(name).entropy_model is found.args.entropy_model
    assert found.args_for("another") is found.args
    assert found.args.model_dump() == whole.model_dump()


def test_a_patcher_in_a_folder_has_its_thresholds_there(tmp_path):
    args = calibrate("ACGTTGCATTAGC" * 60, target_mean_length=5)
    save_patcher(tmp_path / "folder", args)
    place = save_contig_thresholds(tmp_path / "folder", {})
    assert place == tmp_path / "folder" / "patcher.contigs.json"
    assert load_contig_thresholds(place).args_for("x").model_dump() == args.model_dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("contigs"), "wrong: contigs"),
        (lambda content: content.update(more=1), "wrong: more"),
        (lambda content: content.update(format="hyena-glt/patcher/1"), "format: expected"),
        (lambda content: content.update(contigs=[]), "wrong: contigs"),
        (lambda content: content["contigs"].update(chr1=3), "chr1: expected threshold and calibration"),
        (lambda content: content["patcher"].update(path="../p.json"), "name of a .json file in the same folder"),
        (lambda content: content["patcher"].update(path="q.json"), "'q.json'.* is not beside"),
        (lambda content: content["patcher"].update(sha256="0"), "p.json is not the patcher"),
        (lambda content: content.update(patcher="p.json"), "patcher: expected a reference"),
    ],
)
def test_damaged_thresholds_are_refused(saved_contigs, change, message):
    place, _, _ = saved_contigs
    content = json.loads(place.read_text())
    change(content)
    place.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=message):
        load_contig_thresholds(place)


@pytest.mark.parametrize("value", ["high", None])
def test_a_threshold_that_is_no_number_is_named(saved_contigs, value):
    place, _, _ = saved_contigs
    content = json.loads(place.read_text())
    content["contigs"]["chr2"]["threshold"] = value
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="chr2: threshold"):
        load_contig_thresholds(place)
    with pytest.raises(ModelFileError, match="no such file"):
        load_contig_thresholds(place.with_name("none.contigs.json"))


@pytest.mark.parametrize("mode", ["threshold", "monotone", "dual"])
@pytest.mark.parametrize("limits", [(None, None), (2, 24)])
def test_a_curve_is_what_counting_gives(mode, limits):
    random = np.random.default_rng(4)
    scores = [random.gamma(3, 0.3, size).astype(np.float32) for size in (5000, 1, 3000)]
    rule = ScanRule(mode, 0.0, -9.0 if mode == "dual" else None, None, *limits)
    rows = ScoreRows(scores)
    curve = threshold_curve(rows, rule)
    assert 40 < curve.thresholds.size <= 60
    assert (np.diff(curve.thresholds) > 0).all()
    for threshold, mean in zip(curve.thresholds[::9], curve.mean_lengths[::9], strict=True):
        assert mean == 8001 / rows.count_patches(replace(rule, threshold=threshold))
    if limits[1] is None:
        assert curve.uncapped_mean_lengths is None
        assert (np.diff(curve.mean_lengths) >= 0).all()
        assert curve.mean_lengths[-1] > 100
    else:
        assert curve.mean_lengths.max() <= 24
        assert curve.uncapped_mean_lengths[-1] > 100
    assert curve.histogram_edges.size == curve.histogram_shares.size + 1
    assert curve.histogram_shares.sum() == pytest.approx(2 / 3, abs=0.02)
    assert json.loads(json.dumps(curve.as_dict()))["thresholds"] == curve.thresholds.tolist()


def test_a_curve_leaves_out_what_is_not_heard():
    scores = np.random.default_rng(4).random(4000, np.float32)
    heard = np.arange(4000) < 2000
    scores[~heard] = -5.0
    curve = threshold_curve(ScoreRows([scores]), ScanRule("threshold", 0.0), heard=heard)
    assert curve.thresholds[0] > 0.3
    with pytest.raises(ConfigError, match="tokens whose start the threshold decides"):
        threshold_curve(ScoreRows([scores[:1]]), ScanRule("threshold", 0.0))
    flat = threshold_curve(ScoreRows([np.ones(50, np.float32)]), ScanRule("threshold", 0.0))
    assert flat.thresholds.tolist() == [1.0]
