from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hyena_glt.errors import OutputExistsError
from hyena_glt.reports import (
    Budget,
    ContigTrack,
    Embeddings,
    ReportData,
    ambiguous_runs,
    render_report,
    write_report,
)
from hyena_glt.sequences.annotations import Feature


class Page(HTMLParser):
    """Elements with their attributes, and text by element."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.values = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *sorted(name for name, _ in attributes)))
        self.values.extend(attributes)

    def handle_data(self, text):
        self.text.append(text)


def report_of(names, make_track, **fields):
    """A report in which every name that a user controls is one of `names`."""
    tracks = [
        make_track(
            50 + i,
            seed=i,
            name=name,
            features=[Feature("c", 3, 40, "+", f"gene{name}", name, None, 1)],
        )
        for i, name in enumerate(names)
    ]
    points = np.arange(2.0 * len(names)).reshape(-1, 2)
    first = names[0]
    made = {
        "title": first,
        "contigs": tracks,
        "threshold": 1.35,
        "target_length": 16.0,
        "entropy_model": {"name": first, "order": 4, "bits_per_base": 1.9},
        "provenance": {f"{i}{name}": name for i, name in enumerate(names)},
        "embeddings": Embeddings(labels=names, points=points, groups=names, note=first),
        "score_name": f"surprise {first}",
    }
    return ReportData(**{**made, **fields})


@pytest.fixture(scope="module")
def real_genome(data):
    """(length, composition entropies, patch lengths) of a real bacterium, cut where G or C is likely next."""
    import gzip

    with gzip.open(data("genomes/mgenitalium_NC_000908.2.fa.gz")) as file:
        letters = np.frombuffer(b"".join(file.read().split(b"\n")[1:]), np.uint8)
    pairs = letters[:-1].astype(np.int64) * 256 + letters[1:]
    _, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    entropies = np.append(0.0, -np.log(counts / pairs.size)[inverse]).astype(np.float32)
    starts = np.flatnonzero(entropies > np.quantile(entropies, 0.93))
    return letters.size, entropies, np.diff(np.concatenate([[0], starts, [letters.size]]))


def test_hostile_names_change_no_element_and_no_attribute(make_track, hostile):
    plain = Page(render_report(report_of([f"name{i}" for i in range(len(hostile))], make_track)))
    wild = Page(render_report(report_of(list(hostile), make_track)))
    assert wild.elements == plain.elements
    assert not any(name.startswith("on") or name == "style" for name, _ in wild.values)


@pytest.mark.parametrize("place", range(16))
def test_a_hostile_name_is_only_ever_text(make_track, hostile, decode, place):
    html = render_report(report_of([hostile[place]], make_track))
    shown = decode.data(html)["contigs"][0]["name"]
    assert shown.isprintable()
    assert Page(html).text.count(shown) >= 3
    html.encode("utf-8")
    scripts = re.findall(r"<script[^>]*>", html)
    assert scripts == ['<script id="data" type="application/json">', "<script>"]
    assert html.count("</script>") == 2
    assert "\u2028" not in html
    assert "\u202e" not in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", html)


def test_the_policy_allows_the_style_and_the_script_by_hash_and_nothing_else(make_track):
    html = render_report(report_of(["chr1"], make_track))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for rule, tag in (("script-src", "script"), ("style-src", "style")):
        text = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_nothing_is_fetched_from_anywhere(make_track):
    html = render_report(report_of(["chr1"], make_track))
    assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]|url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket", html)
    page = Page(html)
    assert not {tag for tag, *_ in page.elements} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "source",
    }
    assert not {name for name, _ in page.values} & {"src", "href", "srcset", "action", "background", "poster"}


def test_the_script_writes_no_markup(make_track):
    html = render_report(report_of(["chr1"], make_track))
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0]
    for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert risky not in script


def test_the_same_data_gives_the_same_page(make_track):
    assert render_report(report_of(["a", "b"], make_track)) == render_report(report_of(["a", "b"], make_track))


def test_the_tiles_are_the_figures_of_the_arrays(make_track):
    tracks = [make_track(5000, seed=1, name="a"), make_track(300, seed=2, name="b")]
    patches = sum(track.patch_lengths.size for track in tracks)
    data = ReportData(
        title="x",
        contigs=tracks,
        threshold=1.33707,
        target_length=16,
        entropy_model={"name": "markov", "order": 8, "bits_per_base": 1.9304},
    )
    text = Page(render_report(data)).text
    for figure in ("5,300", f"{patches:,}", f"{5300 / patches:.2f} ", "1.930 ", "1.3371 ", "markov, order 8"):
        assert figure in text
    assert f"{5300 / patches:.1f} " in text


def test_without_a_model_bits_per_base_are_those_of_the_patches(make_track):
    track = make_track(2000)
    bits = np.average(track.patch_scores.astype(float), weights=track.patch_lengths) / np.log(2)
    text = Page(render_report(ReportData(title="x", contigs=[track]))).text
    assert f"{bits:.3f} " in text
    assert "no single threshold" in text


def test_the_data_is_that_of_a_real_genome(real_genome, decode):
    length, entropies, lengths = real_genome
    scores = np.add.reduceat(entropies, np.cumsum(lengths) - lengths) / lengths
    track = ContigTrack(
        name="NC_000908.2",
        length=length,
        patch_lengths=lengths,
        patch_scores=scores.astype(np.float32),
        entropies=entropies,
    )
    html = render_report(ReportData(title="M. genitalium", contigs=[track], threshold=3.0))
    page = decode.data(html)
    contig = page["contigs"][0]
    assert decode.varints(contig["detail"]["lengths"]) == lengths.tolist()
    off = np.abs(decode.numbers(contig["bases"], 16) - entropies[:200_000])
    assert off.max() <= decode.half_step(contig["bases"], 16) + 1e-6
    counts = np.bincount(lengths)
    shown = page["histogram"]["counts"]
    assert shown == np.pad(counts, (0, len(shown)))[1 : len(shown) + 1].tolist()
    assert page["histogram"]["mean"] == pytest.approx(length / lengths.size)
    assert len(html.encode()) < 1_000_000


def test_a_generator_of_contigs_is_read_once(make_track, decode):
    html = render_report(ReportData(title="x", contigs=(make_track(100, seed=i, name=str(i)) for i in range(3))))
    assert [contig["name"] for contig in decode.data(html)["contigs"]] == ["0", "1", "2"]


def test_contigs_beyond_the_budget_are_one_row_that_says_so(make_track, decode):
    tracks = [make_track(40 + i, seed=i, name=f"contig{i}") for i in range(9)]
    html = render_report(ReportData(title="x", contigs=tracks), Budget(contigs=4))
    assert len(decode.data(html)["contigs"]) == 4
    text = " ".join(Page(html).text)
    assert "5 other contigs, summed" in text
    assert "The 4 largest contigs have a row and a track of their own" in text
    assert f"{sum(40 + i for i in range(5)):,}" in text


def test_a_hundred_thousand_contigs_make_no_monster_page(make_track):
    track = make_track(300)
    copies = (track for _ in range(100_000))
    html = render_report(ReportData(title="x", contigs=copies))
    assert len(html.encode()) < 1_000_000
    assert "99,800 other contigs, summed" in html


def test_a_chromosome_fits_into_three_megabytes():
    random, length = np.random.default_rng(0), 12_000_000
    lengths = random.geometric(1 / 16, length // 15).astype(np.int64)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), length)]
    lengths = np.append(lengths, length - lengths.sum())
    features = [Feature("c", i * 900, i * 900 + 700, "+-"[i % 2], "gene", f"g{i}", None, 1) for i in range(12_000)]
    track = ContigTrack(
        name="chr1",
        length=length,
        patch_lengths=lengths,
        patch_scores=random.random(lengths.size, dtype=np.float32),
        entropies=random.random(length, dtype=np.float32),
        features=features,
        ambiguous=ambiguous_runs(random.random(length) < 1e-3),
    )
    html = render_report(ReportData(title="x", contigs=[track], threshold=0.9))
    assert len(html.encode()) < 3_000_000
    for words in ("500,000 of", "first 200,000 bases", "10,000 longest of 12,000 features"):
        assert words in html


def test_an_empty_report_is_a_page_all_the_same():
    html = render_report(ReportData(title="nothing", contigs=[]))
    assert "There is no contig with any base to draw." in html
    assert "<h1><bdi>nothing</bdi></h1>" in html


def test_numpy_numbers_are_welcome(make_track, decode):
    track = make_track(100, features=[Feature("c", np.int64(3), np.int64(40), "+", "gene", "g", None, 1)])
    data = ReportData(title="x", contigs=[track], threshold=np.float32(1.25), target_length=np.float64(16))
    assert decode.data(render_report(data))["threshold"] == 1.25


def test_provenance_is_shown_in_full(make_track):
    command = "hyena-glt report " + "x" * 3000
    html = render_report(report_of(["chr1"], make_track, provenance={"command": command}))
    assert command in html


def test_the_file_is_the_page(make_track, tmp_path):
    path = tmp_path / "report.html"
    data = report_of(["chr1", "\udcff"], make_track)
    write_report(path, data)
    assert path.read_text(encoding="utf-8") == render_report(data)
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_file_that_is_there_stays_unless_told_otherwise(make_track, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(path, report_of(["chr1"], make_track))
    assert path.read_text() == "mine"
    write_report(path, report_of(["chr1"], make_track), overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_embedded_data_is_strict_json(make_track):
    nothing = np.array([np.nan], np.float32)
    track = ContigTrack(name="unknown", length=50, patch_lengths=np.array([50]), patch_scores=nothing)
    html = render_report(ReportData(title="x", contigs=[track, make_track(100, entropies=np.repeat(nothing, 100))]))
    text = re.search(r'type="application/json">(.*?)</script>', html)[1]

    def refuse(word):
        raise AssertionError(word)

    json.loads(text, parse_constant=refuse)
