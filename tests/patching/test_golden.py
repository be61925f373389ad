"""The published reference's behaviour on 432 inputs, oddities included."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from hyena_glt.patching import Patcher, Scanner, ScanRule
from hyena_glt.patching.batch_lengths import close_starts, lay_out, no_columns
from hyena_glt.patching.patch_lengths import patch_lengths_from_start_mask, split_large_numbers
from hyena_glt.patching.rows import read_rows
from hyena_glt.patching.start_masks import StartRequest, tensor_start_mask

SCAN_MODES = {
    "entropy_threshold": "threshold",
    "entropy_monotonicity": "monotone",
    "entropy_dual": "dual",
    "static": "static",
    "byte": "byte",
    "space": "mask",
    "bpe": "mask",
    "bpe_patcher": "mask",
}
MODES = [*SCAN_MODES, "entropy_topk"]

# Space mode finds nothing to split DNA at and says so; the reference's cases hold such rows.
pytestmark = pytest.mark.filterwarnings("ignore::hyena_glt.patching.PatchingWarning")


@pytest.fixture(scope="module")
def cases(data):
    with gzip.open(data("patcher_golden.json.gz")) as file:
        return json.load(file)["cases"]


def patcher_of(case):
    fields = {name: case[name] for name in ("threshold", "threshold_add", "monotonicity", "max_patch_length")}
    if case["patch_size"] is not None:
        fields["patch_size"] = case["patch_size"]
    mode = "entropy" if case["mode"].startswith("entropy") else case["mode"]
    return Patcher(patching_mode=mode, device="cpu", **fields)


def inputs_of(case):
    tokens = torch.tensor(case["tokens"])
    entropies = None if case["entropies"] is None else torch.tensor(case["entropies"])
    preds = None if case["bpe_pred"] is None else torch.tensor(case["bpe_pred"])
    return tokens, entropies, preds


@pytest.mark.parametrize("mode", MODES)
def test_against_the_reference_through_the_patcher(cases, mode):
    chosen = [case for case in cases if case["mode"] == mode]
    assert len(chosen) == 48
    for case in chosen:
        tokens, entropies, preds = inputs_of(case)
        lengths, _ = patcher_of(case).patch(tokens, case["include_next_token"], entropies=entropies, preds=preds)
        assert lengths.tolist() == case["patch_lengths"], case["id"]


def request_of(case):
    tokens, entropies, preds = inputs_of(case)
    return StartRequest(
        args=patcher_of(case).args,
        rows=read_rows(tokens),
        num_next=int(case["include_next_token"]),
        threshold=case["threshold"],
        scores=entropies,
        predictions=None if preds is None else preds.bool(),
    )


@pytest.mark.parametrize("mode", MODES)
def test_against_the_reference_through_the_tensor_functions(cases, mode):
    for case in (case for case in cases if case["mode"] == mode):
        lengths = patch_lengths_from_start_mask(tensor_start_mask(request_of(case)))
        if case["max_patch_length"] is not None:
            lengths = split_large_numbers(lengths, case["max_patch_length"])
        assert lengths.tolist() == case["patch_lengths"], case["id"]


@pytest.mark.parametrize("mode", SCAN_MODES)
def test_against_the_reference_through_the_scanner(cases, mode):
    for case in (case for case in cases if case["mode"] == mode):
        rule = ScanRule(
            SCAN_MODES[mode],
            threshold=case["threshold"],
            threshold_add=case["threshold_add"],
            patch_size=case["patch_size"],
            max_patch_length=case["max_patch_length"],
        )
        for row, expected in enumerate(case["patch_lengths"]):
            lengths = scan_row(Scanner(rule), case, row)
            assert lengths == [length for length in expected if length], case["id"]


def scan_row(scanner, case, row):
    next_token = case["include_next_token"]
    if scanner.rule.mode == "mask":
        starts = tensor_start_mask(request_of(case))[row].numpy()
        return [*scanner.feed(starts), *scanner.finish()]
    given = case["entropies"] or case["tokens"]
    return [*scanner.feed(np.array(given[row], np.float32)), *scanner.finish(next_token)]


@pytest.mark.parametrize("mode", MODES)
def test_each_row_alone_gives_what_it_gives_in_its_batch(cases, mode):
    for case in (case for case in cases if case["mode"] == mode and len(case["tokens"]) > 1):
        tokens, entropies, preds = inputs_of(case)
        for row, expected in enumerate(case["patch_lengths"]):
            alone, _ = patcher_of(case).patch(
                tokens[row : row + 1],
                case["include_next_token"],
                entropies=None if entropies is None else entropies[row : row + 1],
                preds=None if preds is None else preds[row : row + 1],
            )
            assert alone[0].tolist() == [length for length in expected if length], case["id"]


def test_closing_a_tensor_mask_on_the_cpu_gives_the_same(cases):
    for case in cases[::7]:
        request = request_of(case)
        starts = tensor_start_mask(request).contiguous()
        lengths = lay_out(close_starts(request, starts, None, no_columns(len(starts))), request.rows)
        assert lengths.tolist() == case["patch_lengths"], case["id"]
