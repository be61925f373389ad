"""What a variant does to a sequence: against the definition, whatever the spelling, the batch and the strand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyena_glt import Patcher
from hyena_glt.errors import AlphabetError, ConfigError, RegionError
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.variants.alleles import UnscoredReason
from hyena_glt.variants.edits import Edit, normalised
from hyena_glt.variants.scoring import PlacedEdit, VariantScorer
from hyena_glt.variants.vcf_records import VcfRecord

pytestmark = pytest.mark.usefixtures("one_thread")
CONTIG = generate_random_genomic_sequence(700, seed=5).encode()
WINDOW = 64
ROUNDING = {"rtol": 1e-5, "atol": 5e-5}  # differences of sums of float32 log likelihoods, up to some hundred nats


@pytest.fixture(scope="module")
def net(scoring_net, entropy_patcher):
    return scoring_net(entropy_patcher)


def edit(start: int, length: int, alt: bytes, contig: bytes = CONTIG) -> PlacedEdit:
    return PlacedEdit("c", Edit(start, contig[start : start + length], alt))


MIXED = [
    edit(300, 1, b"A"),
    edit(300, 1, b"C"),
    edit(300, 1, b"G"),
    edit(301, 4, b""),
    edit(420, 0, b"ACGTTT"),
    edit(10, 2, b"TTA"),
    edit(0, 1, b"CC"),
    edit(695, 2, b"G"),
    edit(699, 1, b"AAAA"),
    edit(200, 100, b""),
    edit(350, 0, generate_random_genomic_sequence(90, seed=1).encode()),
]


def by_definition(net, start: int, ref: bytes, alt: bytes, first: int) -> list[float]:
    """The numbers of two windows of equal length: two whole forwards, sums over all bases from `first` on."""
    found = []
    for window in (ref, alt):
        with torch.no_grad():
            output = net.forward_with_patching(window)
        ids = net.vocabulary_ids(torch.tensor([[byte + 4 for byte in window]]))[0]
        terms = output.logits[0].double().log_softmax(-1)[:-1].gather(1, ids[1:, None]).flatten()
        lengths = output.patch_lengths[0].double()
        state = output.last_hidden_state[0].double().mean(0)
        found.append((terms[max(first, 1) - 1 :].sum(), state, len(lengths), lengths.var(), lengths.mean()))
    (a, u, n, v, c), (b, w, m, x, d) = found
    cosine = torch.cosine_similarity(u, w, dim=0)
    return [float(value) for value in (b - a, 1 - cosine, m - n, x - v, d - c)]


@pytest.mark.parametrize("reuse", [False, True])
def test_against_two_whole_forwards(net, reuse):
    found = VariantScorer(net, {"c": CONTIG}, window=WINDOW, rc="none", reuse=reuse).score(
        [edit(300, 1, b"A"), edit(420, 0, b"ACGTTT"), edit(402, 5, b"")]
    )
    for effect, place, length, alt in zip(found, (300, 420, 402), (1, 0, 5), (b"A", b"ACGTTT", b""), strict=True):
        start, ref, alt = normalised(Edit(place, CONTIG[place : place + length], alt), lambda s, e: CONTIG[s:e])
        begin = (start - WINDOW // 2) // 4 * 4
        changed = CONTIG[:start] + alt + CONTIG[start + len(ref) :]
        windows = CONTIG[begin : begin + WINDOW], changed[begin : begin + WINDOW]
        expected = by_definition(net, begin, *windows, start - begin)
        np.testing.assert_allclose(effect.numbers, expected, **ROUNDING)


@pytest.mark.parametrize("rc", ["none", "avg"])
def test_batch_company_and_order_change_nothing(net, rc):
    alone = [VariantScorer(net, {"c": CONTIG}, window=WINDOW, rc=rc).score([one])[0] for one in MIXED]
    for batch_size in (2, 32):
        scorer = VariantScorer(net, {"c": CONTIG}, window=WINDOW, rc=rc, batch_size=batch_size)
        for found, expected in zip(scorer.score(MIXED), alone, strict=True):
            np.testing.assert_allclose(found.numbers, expected.numbers, **ROUNDING)
    streamed = VariantScorer(net, {"c": CONTIG}, window=WINDOW, rc=rc, reuse=True)
    together = streamed.score(MIXED)
    assert together == [streamed.score([one])[0] for one in MIXED]
    assert together[::-1] == streamed.score(MIXED[::-1])
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found.numbers, expected.numbers, **ROUNDING)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, 60),
    length=st.integers(0, 6),
    alt=st.text("AC", max_size=5),
    left=st.integers(0, 9),
    right=st.integers(0, 9),
)
def test_equivalent_spellings_score_bitwise_equal(net, start, length, alt, left, right):
    contig = b"ACACACACCCCCCAAAAAAACACACACGACACACAACCCCCCCCCCCACACAAAAAAAAAAAAACACAC"
    end = min(start + length, len(contig))
    left, right = min(left, start), min(right, len(contig) - end)
    flanks = contig[start - left : start], contig[end : end + right]
    spellings = [
        PlacedEdit("c", Edit(start, contig[start:end], alt.encode())),
        PlacedEdit("c", Edit(start - left, contig[start - left : end + right].lower(), alt.encode().join(flanks))),
    ]
    for reuse in (False, True):
        scorer = VariantScorer(net, {"c": contig}, window=32, rc="avg", batch_size=1, reuse=reuse)
        one, other = scorer.score(spellings)
        changed = contig[:start] + alt.encode() + contig[end:]
        if changed == contig:
            assert one.log_likelihood_difference in (0.0, None)
        else:
            assert one == other == scorer.score(spellings[1:])[0]


def test_both_strands_together_know_no_strand(net):
    turned = reverse_complement(CONTIG)
    mirrored = [
        PlacedEdit("c", Edit(len(CONTIG) - e.end, reverse_complement(e.ref), reverse_complement(e.alt)))
        for _, e in MIXED
    ]
    ours = VariantScorer(net, {"c": CONTIG}, window=WINDOW, rc="avg", batch_size=1).score(MIXED)
    theirs = VariantScorer(net, {"c": turned}, window=WINDOW, rc="avg", batch_size=1).score(mirrored)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numbers, other.numbers, rtol=1e-12, atol=1e-12)
    forward = VariantScorer(net, {"c": CONTIG}, window=WINDOW, rc="none", batch_size=1).score(MIXED)
    backward = VariantScorer(net, {"c": turned}, window=WINDOW, rc="none", batch_size=1).score(mirrored)
    for one, left, right in zip(ours[:6], forward[:6], backward[:6], strict=True):
        np.testing.assert_allclose(one.numbers, np.add(left.numbers, right.numbers) / 2, rtol=1e-12, atol=1e-12)


def test_what_is_no_change_has_no_effect(net):
    for reuse in (False, True):
        scorer = VariantScorer(net, {"c": CONTIG}, window=WINDOW, reuse=reuse)
        assert scorer.score([edit(300, 3, CONTIG[300:303])])[0].numbers == (0.0,) * 5


def test_soft_mask_and_u_change_nothing(net):
    plain = VariantScorer(net, {"c": CONTIG}, window=WINDOW).score(MIXED)
    masked = CONTIG.lower().replace(b"t", b"u")
    assert VariantScorer(net, {"c": masked}, window=WINDOW).score(MIXED) == plain


def test_a_contig_is_scored_from_its_first_base_to_its_last(net):
    contig = CONTIG[:80]
    edits = [
        edit(i, n, alt, contig)
        for i in (0, 1, 2, 40, 77, 78, 79)
        for n, alt in ((1, b"A"), (0, b"GT"), (2, b""))
        if i + n <= 80
    ]
    for rc in ("none", "avg"):
        effects = VariantScorer(net, {"c": contig}, window=32, rc=rc).score(edits)
        assert all(effect.reason is None and all(map(math.isfinite, effect.numbers)) for effect in effects)
        assert all(effect.cosine_distance >= 0 for effect in effects)


def test_where_no_base_follows_the_other_strand_takes_its_place(net):
    contig = CONTIG[:80]
    last = edit(78, 2, b"", contig)
    none, both = (VariantScorer(net, {"c": contig}, window=32, rc=rc).score([last])[0] for rc in ("none", "avg"))
    assert none == both
    assert none.log_likelihood_difference != 0


def test_n_is_read_but_never_scored(net):
    nothing = b"N" * 200
    scorer = VariantScorer(net, {"c": nothing, "d": b"N" * 100 + b"ACGT" * 5 + b"N" * 100}, window=64)
    assert scorer.score([PlacedEdit("c", Edit(100, b"N", b"A"))])[0].reason is UnscoredReason.NO_LETTER
    some = scorer.score([PlacedEdit("d", Edit(105, b"C", b"")), PlacedEdit("d", Edit(100, b"", b"GG"))])
    assert all(effect.reason is None and all(map(math.isfinite, effect.numbers)) for effect in some)


def test_iupac_codes_are_n(net):
    codes = CONTIG[:290] + b"RYKM" + CONTIG[294:]
    unknown = CONTIG[:290] + b"NNNN" + CONTIG[294:]
    results = [VariantScorer(net, {"c": contig}, window=WINDOW).score(MIXED[:4]) for contig in (codes, unknown)]
    assert results[0] == results[1]


def test_what_is_no_nucleotide_is_named(net):
    gapped = CONTIG[:310] + b"-" + CONTIG[311:]
    with pytest.raises(AlphabetError, match="c: reference near base 301: "):
        VariantScorer(net, {"c": gapped}, window=WINDOW).score(MIXED[:1])


def test_records_with_every_kind_of_allele(net, tmp_path):
    (tmp_path / "ref.fa").write_bytes(b">c\n" + CONTIG + b"\n")
    record = VcfRecord(b"", "c", 301, CONTIG[300:301], (b"T", b"G", b"*", b"<DEL>", b"N[c:5[", b"AN"), 9)
    missing = VcfRecord(b"", "c", 301, CONTIG[300:301], (), 10)
    telomere = VcfRecord(b"", "c", 0, b"N", (b"A",), 11)
    with IndexedFasta(Path(tmp_path / "ref.fa")) as genome:
        effects = VariantScorer(net, genome, window=WINDOW).score_records([record, missing, telomere])
    reasons = [[effect.reason and str(effect.reason) for effect in row] for row in effects]
    assert reasons == [
        [None, None, "spanning_deletion", "symbolic", "breakend", "ambiguous_base"],
        ["no_alt"],
        ["telomere"],
    ]
    assert effects[0][2].numbers == (None,) * 5
    alone = VariantScorer(net, {"c": CONTIG}, window=WINDOW).score([edit(300, 1, b"T")])[0]
    np.testing.assert_allclose(effects[0][0].numbers, alone.numbers, **ROUNDING)


def test_a_value_that_is_not_finite_is_no_score(scoring_net, entropy_patcher):
    net = scoring_net(entropy_patcher)
    with torch.no_grad():
        net.head.project.bias[4] = torch.inf
    for reuse in (False, True):
        effect = VariantScorer(net, {"c": CONTIG}, window=WINDOW, reuse=reuse).score(MIXED[:1])[0]
        assert (effect.reason, effect.numbers) == (UnscoredReason.NOT_FINITE, (None,) * 5)


@pytest.mark.filterwarnings("ignore:this patcher's boundaries can depend on the future")
def test_what_cannot_be_asked_for(net, scoring_net):
    with pytest.raises(ConfigError, match="causal"):
        VariantScorer(scoring_net(causal=False), {})
    with pytest.raises(ConfigError, match="overlap"):
        VariantScorer(scoring_net(Patcher(patching_mode="static", patch_size=8, overlap=2)), {})
    with pytest.raises(ConfigError, match="nucleotides"):
        VariantScorer(scoring_net(genomic_vocab_size=20), {})
    for options in ({"window": 8}, {"rc": "both"}, {"batch_size": 0}):
        with pytest.raises(ConfigError):
            VariantScorer(net, {}, **options)
    with pytest.raises(RegionError, match="unknown contig"):
        VariantScorer(net, {"c": CONTIG}).score([PlacedEdit("d", Edit(0, b"A", b"C"))])


@pytest.mark.parametrize("length", [-20, -1, 1, 20])
def test_the_length_of_an_indel_alone_is_no_score(net, length):
    """Windows of unequal length would miss this by 1.4 nats per base; ours is within 4 standard errors."""
    random = np.random.default_rng(abs(length) * 2 + (length > 0))
    contig = generate_random_genomic_sequence(9000, seed=17).encode()
    places = random.integers(200, 8800, size=150)
    edits = [
        edit(int(place), max(0, -length), bytes(random.choice(list(b"ACGT"), max(0, length)).tolist()), contig)
        for place in places
    ]
    effects = VariantScorer(net, {"c": contig}, window=WINDOW, rc="none").score(edits)
    scores = np.array([effect.log_likelihood_difference for effect in effects])
    assert abs(scores.mean()) < 4 * scores.std(ddof=1) / scores.size**0.5
    assert abs(scores.mean()) < 0.25 * 1.386 * max(abs(length), 4)


@given(near=st.text("ACGT", min_size=1, max_size=12), far=st.text("ACGT", min_size=1, max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_of_indels_at_one_site_add_up(net, near, far):
    """REF is treated as ALT is: an insertion in what another has made is the rest of both; taken back, all is lost."""
    site, window = 335, 256  # windows begin at multiples of 16: a shift of up to 15 bases to the left changes none
    left, right = CONTIG[:site], CONTIG[site:]
    inner = far.encode()
    both = near.encode() + inner
    contigs = {"none": CONTIG, "far": left + inner + right, "both": left + both + right}
    steps = [
        PlacedEdit("none", Edit(site, b"", inner)),
        PlacedEdit("far", Edit(site, b"", near.encode())),
        PlacedEdit("both", Edit(site, both, b"")),
        PlacedEdit("none", Edit(site, b"", both)),
    ]
    effects = VariantScorer(net, contigs, window=window, rc="none").score(steps)
    first, second, back, at_once = (effect.log_likelihood_difference for effect in effects)
    np.testing.assert_allclose([first + second, -back], at_once, **ROUNDING)
