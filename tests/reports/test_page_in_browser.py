"""The page in a real browser: what it shows, how it answers, and that it stays silent and offline."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from hyena_glt.reports import Budget, ContigTrack, Embeddings, ReportData, render_report
from hyena_glt.sequences.annotations import Feature

pytestmark = pytest.mark.browser

SHIFT = 8


def feature(start, end, name, strand="+", kind="gene"):
    return Feature("chr1", start, end, strand, kind, name, None, 1)


@pytest.fixture(scope="module")
def track(make_track):
    features = [
        feature(2000, 3500, "dnaN"),
        feature(4000, 4090, "trnA", "-", "tRNA"),
        feature(9000, 9500, "gyrB"),
    ]
    return make_track(20_000, seed=3, features=features, ambiguous=np.array([[15_000, 15_200]]))


@pytest.fixture(scope="module")
def page(track, make_track, tmp_path_factory):
    """A page of three contigs; the second starts at base 1,001 and has no entropies."""
    second = make_track(3000, seed=4, name="chr2:x", offset=1000, entropies=None)
    third = make_track(700, seed=5, name="plasmid")
    embeddings = Embeddings(
        labels=[f"record {i}" for i in range(30)],
        points=np.random.default_rng(0).normal(size=(30, 2)),
        groups=["a", "b", "c"] * 10,
        explained=(0.4, 0.2),
        note="untrained weights",
    )
    data = ReportData(
        title="Example",
        contigs=[track, second, third],
        threshold=1.35,
        target_length=16,
        provenance={"command": "hyena-glt report"},
        embeddings=embeddings,
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, page):
    browser.window(1280, 900)
    browser.open(page)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]


def shown(browser):
    """(contig, first, last) that the line under the tracks tells, 1-based."""
    text = browser.text("#shown")
    contig, first, last = re.match(r"(.+?): ([\d,]+)\N{EN DASH}([\d,]+),", text).groups()
    return contig, int(first.replace(",", "")), int(last.replace(",", ""))


def reading(browser):
    """The tooltip of the sequence browser as a dict, and its heading."""
    heading = browser.text("#browser .tip p")
    terms, values = browser.texts("#browser .tip dt"), browser.texts("#browser .tip dd")
    return heading, dict(zip(terms, values, strict=True))


def go_to(browser, text):
    browser.run(f"document.getElementById('place').value = {text!r}")
    browser.run("document.getElementById('goto').requestSubmit()")
    browser.settle()


def test_the_page_opens_by_itself(chromium_command, page):
    flags = ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run(
        [*chromium_command, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert 'data-ready="true"' in done.stdout
    assert "CONSOLE" not in done.stderr
    assert "<dt>Bases</dt>" in done.stdout
    assert "23,700" in done.stdout
    assert done.stdout.count("data-contig=") == 3


def test_the_figures_are_filled_in(opened, track):
    assert opened.texts(".tile .value")[0] == "23,700"
    assert len(opened.texts("#contigs tbody tr")) == 3
    assert shown(opened) == ("chr1", 1, 20_000)
    assert opened.run("document.querySelectorAll('#histogram rect').length") > 30
    assert opened.texts("#groups span") == ["a", "b", "c"]
    assert opened.texts("#kinds span") == ["gene, coding", "RNA"]


@pytest.mark.parametrize("selector", ["#browser > canvas", "#overview canvas", "#scatter > canvas", "#scale"])
def test_canvases_are_drawn(opened, selector):
    colours = opened.run(
        f"(() => {{ const c = document.querySelector('{selector}');"
        "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
        "return new Set(d).size; })()"
    )
    assert colours > 4


@pytest.mark.parametrize("position", [1, 2, 700, 2001, 9_999, 14_999, 19_999, 20_000])
def test_the_address_names_a_base_and_the_tooltip_reads_it(opened, page, track, position):
    first, last = max(1, position - 40), min(20_000, position + 40)
    opened.open(page, f"#region=chr1:{first}-{last}&at={position}")
    assert shown(opened) == ("chr1", first, last)
    heading, rows = reading(opened)
    ends = np.cumsum(track.patch_lengths)
    patch = int(np.searchsorted(ends, position - 1, side="right"))
    length = track.patch_lengths[patch]
    assert heading == f"Position {position:,}"
    assert float(rows["Entropy"].split()[0]) == pytest.approx(track.entropies[position - 1], abs=1e-4)
    assert rows["Patch"] == f"{patch + 1:,} of {ends.size:,}"
    place = f"({ends[patch] - length + 1:,}\N{EN DASH}{ends[patch]:,})"
    assert rows["Length"] == f"{length} base{'' if length == 1 else 's'} {place}"
    assert float(rows["Mean surprise"].split()[0]) == pytest.approx(track.patch_scores[patch], abs=0.015)
    assert rows.get("Feature") == ("dnaN (gene, +)" if 2000 <= position - 1 < 3500 else None)


def test_zoomed_out_the_tooltip_sums_a_pixel(opened, page, track):
    opened.open(page, "#region=chr1:1-20000&at=5001")
    heading, rows = reading(opened)
    first, last = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", heading))
    assert first == 5001
    part = track.entropies[first - 1 : last]
    numbers = [float(n) for n in re.findall(r"[\d.]+", rows["Entropy"])]
    assert numbers == pytest.approx([part.mean(), part.min(), part.max()], abs=0.006)


def test_ambiguous_bases_have_no_entropy(opened, page):
    opened.open(page, "#region=chr1:14900-15300&at=15100")
    _, rows = reading(opened)
    assert rows["Sequence"] == "ambiguous (N)"
    assert "Entropy" not in rows


def test_a_contig_without_entropies_shows_the_scores_at_its_offset(opened, page):
    opened.open(page, "#region=chr2%3Ax:1100-1200&at=1150")
    assert shown(opened) == ("chr2:x", 1100, 1200)
    heading, rows = reading(opened)
    assert heading == "Position 1,150"
    assert "Entropy" not in rows
    assert opened.texts("#notes li") == ["No entropy per base was given: the curve shows the scores of the patches."]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("chr1:101-1,100", ("chr1", 101, 1100)),
        ("chr2:x:1,001-2000", ("chr2:x", 1001, 2000)),
        ("chr2:x", ("chr2:x", 1001, 4000)),
        ("500-900", ("chr1", 500, 900)),
        ("dnaN", ("chr1", 1841, 3660)),
        ("DNAN", ("chr1", 1841, 3660)),
        ("gyr", ("chr1", 8941, 9560)),
    ],
)
def test_go_to_finds_regions_contigs_and_genes(opened, text, place):
    go_to(opened, text)
    assert opened.text("#message") == ""
    assert shown(opened) == place


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("chr1:19000-20001", "chr1 covers 1 to 20,000 here."),
        ("chr1:0-5", "chr1 covers"),
        ("chr1:500-400", "chr1 covers"),
        ("chr2:x:1-1000", "chr2:x covers 1,001 to 4,000 here."),
        ("nothing", "No contig, region or gene"),
        ("", "Give a region"),
    ],
)
def test_a_place_that_is_not_here_is_said_and_the_view_stays(opened, text, problem):
    go_to(opened, text)
    assert problem in opened.text("#message")
    assert shown(opened) == ("chr1", 1, 20_000)


def test_the_wheel_zooms_around_the_pointer_and_a_drag_moves(opened):
    box = opened.box("#browser")
    x, y = box["x"] + 48 + (box["width"] - 49) / 2, box["y"] + 120
    for _ in range(3):
        opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    _, first, last = shown(opened)
    span = last - first + 1
    assert 2000 < span < 10_000
    assert (first + last) / 2 == pytest.approx(10_000, abs=span / 20)
    opened.drag(x, y, x - 200)
    _, moved, _ = shown(opened)
    assert moved - first == pytest.approx(200 * span / (box["width"] - 49), abs=3)


def test_hovering_reads_and_leaving_hides(opened):
    box = opened.box("#browser")
    opened.mouse("mouseMoved", box["x"] + 300, box["y"] + 100)
    assert reading(opened)[0].startswith("Positions")
    assert "Entropy" in reading(opened)[1]
    opened.mouse("mouseMoved", 2, 2)
    assert opened.run("document.querySelector('#browser .tip').hidden")


def test_a_double_click_zooms_in_and_on_a_gene_to_the_gene(opened):
    box = opened.box("#browser")
    x = box["x"] + 48 + (box["width"] - 49) * 2750 / 20_000
    opened.press(x, box["y"] + 340, clicks=2)
    opened.settle()
    _, first, last = shown(opened)
    assert last - first + 1 == pytest.approx(20_000 / 3, abs=2)
    go_to(opened, "chr1")
    opened.press(x, box["y"] + box["height"] - 30, clicks=2)
    opened.settle()
    assert shown(opened) == ("chr1", 1841, 3660)


def test_keys_move_zoom_and_read(opened):
    opened.run("document.getElementById('browser').focus()")
    opened.key("+")
    opened.key("+")
    _, first, last = shown(opened)
    assert last - first + 1 == pytest.approx(20_000 / 1.6**2, abs=2)
    opened.key("ArrowRight")
    assert shown(opened)[1] - first == pytest.approx((last - first) / 5, abs=2)
    opened.key("Home")
    assert shown(opened)[1] == 1
    opened.key("End")
    assert shown(opened)[2] == 20_000
    opened.key("ArrowLeft", SHIFT)
    assert "Entropy" in opened.run("document.getElementById('readout').textContent")
    opened.key("Escape")
    assert opened.run("document.querySelector('#browser .tip').hidden")
    opened.key("0")
    assert shown(opened) == ("chr1", 1, 20_000)


def test_the_window_of_the_overview_can_be_dragged(opened):
    go_to(opened, "chr1:1-2000")
    box = opened.box("#overview")
    opened.drag(box["x"] + box["width"] * 0.05, box["y"] + 20, box["x"] + box["width"] * 0.55)
    assert shown(opened)[1] == pytest.approx(10_000, abs=60)
    edge = box["x"] + box["width"] * (shown(opened)[2] / 20_000)
    opened.drag(edge - 1, box["y"] + 20, box["x"] + box["width"] * 0.8)
    _, first, last = shown(opened)
    assert (first, last) == (pytest.approx(10_000, abs=60), pytest.approx(16_000, abs=60))


def test_buttons_zoom_and_change_the_scale(opened):
    opened.run("document.getElementById('zoom-in').click()")
    opened.settle()
    assert shown(opened)[2] - shown(opened)[1] + 1 == pytest.approx(12_500, abs=2)
    opened.run("document.getElementById('zoom-all').click()")
    opened.run("document.getElementById('from-zero').click()")
    opened.settle()
    assert shown(opened) == ("chr1", 1, 20_000)
    assert opened.run("document.getElementById('from-zero').getAttribute('aria-pressed')") == "true"


def test_the_address_follows_the_view(opened):
    go_to(opened, "chr1:101-1100")
    opened.run("new Promise(done => setTimeout(done, 400))")
    assert opened.run("location.hash") == "#region=chr1:101-1100"
    opened.run("location.hash = '#region=plasmid:5-300'")
    opened.settle()
    assert shown(opened) == ("plasmid", 5, 300)


def test_the_table_sorts_and_opens_contigs(opened):
    click = "document.querySelectorAll('#contigs thead button')[{}].click()"
    names = "#contigs tbody th"
    assert opened.texts(names) == ["chr1", "chr2:x", "plasmid"]
    opened.run(click.format(1))
    assert opened.texts(names) == ["chr1", "chr2:x", "plasmid"]
    opened.run(click.format(1))
    assert opened.texts(names) == ["plasmid", "chr2:x", "chr1"]
    assert opened.run("document.querySelectorAll('#contigs thead th')[1].getAttribute('aria-sort')") == "ascending"
    opened.run(click.format(0))
    assert opened.texts(names) == ["chr1", "chr2:x", "plasmid"]
    opened.run("document.querySelector('[data-contig=\"2\"]').click()")
    opened.settle()
    assert shown(opened) == ("plasmid", 1, 700)
    assert opened.run("document.getElementById('contig').value") == "2"


def test_charts_answer_to_the_pointer(opened):
    box = opened.box("#histogram")
    opened.mouse("mouseMoved", box["x"] + 200, box["y"] + 150)
    assert re.fullmatch(r"\d+ bases?", opened.text("#histogram .tip p"))
    opened.run("document.getElementById('scatter').focus()")
    opened.key("ArrowRight")
    assert opened.text("#scatter .tip p") == "record 0"
    assert "Group a" in opened.run("document.getElementById('scatter-readout').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 420, 800, 1280])
def test_nothing_sticks_out_of_the_window(opened, width, scheme):
    opened.window(width, 900, scheme)
    opened.settle()
    root = "document.documentElement"
    assert opened.run(f"{root}.scrollWidth <= {root}.clientWidth && {root}.clientWidth > {width} - 20")
    dark = opened.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 24)"
    assert dark == (scheme == "dark")


def test_paper_is_light(opened):
    opened.window(1280, 900, "dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.run(background) == "rgb(16, 20, 24)"
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run(background) == "rgb(246, 247, 249)"
    assert opened.run("document.querySelector('#browser > canvas').width") < 720
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run(background) == "rgb(16, 20, 24)"


def test_hostile_names_do_nothing(browser, make_track, hostile, tmp_path):
    features = [feature(5 * i, 5 * i + 30, name, kind=name) for i, name in enumerate(hostile)]
    tracks = [make_track(200, seed=i, name=name, features=features) for i, name in enumerate(hostile)]
    data = ReportData(
        title=hostile[0],
        contigs=tracks,
        provenance=dict(zip(hostile, hostile, strict=True)),
        embeddings=Embeddings(labels=hostile, points=np.eye(16)[:, :2], groups=hostile, note=hostile[1]),
    )
    path = tmp_path / "hostile.html"
    path.write_text(render_report(data), encoding="utf-8")
    browser.window(1280, 900)
    browser.open(path)
    for index in range(len(hostile)):
        browser.run(f"document.querySelector('[data-contig=\"{index}\"]').click()")
        browser.settle()
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('img, iframe, [onload], [onerror]').length") == 0


def test_the_policy_stops_what_would_slip_in(browser, page):
    browser.open(page)
    blocked = browser.run(
        """new Promise(done => {
            const seen = [];
            document.addEventListener('securitypolicyviolation', e => seen.push(e.effectiveDirective));
            const script = document.createElement('script');
            script.textContent = 'window.slipped = 1';
            document.body.append(script);
            new Image().src = 'https://example.invalid/a.png';
            fetch('https://example.invalid/b').catch(() => setTimeout(() => done(seen), 200));
        })"""
    )
    assert {"img-src", "script-src-elem", "connect-src"} <= set(blocked)
    assert browser.run("window.slipped === undefined")


def test_beyond_the_budget_the_page_draws_bins_and_says_so(browser, track, tmp_path):
    budget = Budget(bins=200, patches=100, bases=500)
    path = tmp_path / "small.html"
    data = ReportData(title="x", contigs=[track], threshold=1.35)
    path.write_text(render_report(data, budget), encoding="utf-8")
    browser.open(path, "#region=chr1:10001-10300&at=10101")
    heading, rows = reading(browser)
    assert heading == "Position 10,101"
    part = track.entropies[10_100:10_200]
    numbers = [float(n) for n in re.findall(r"[\d.]+", rows["Entropy, 100-base bin"])]
    assert numbers == pytest.approx([part.mean(), part.min(), part.max()], abs=0.006)
    assert "Patch" not in rows
    starts = np.cumsum(track.patch_lengths) - track.patch_lengths
    assert float(rows["Patches per kb"]) == 10 * ((starts >= 10_100) & (starts < 10_200)).sum()
    assert "The curve here shows bins of 100 bases." in browser.text("#shown")
    assert len(browser.texts("#notes li")) == 2
    assert browser.complaints() == []


def test_counts_beyond_31_bits_are_read(browser, tmp_path):
    length = 2**31 + 8
    track = ContigTrack(
        name="chr1",
        length=length,
        patch_lengths=np.array([length - 5, 5]),
        patch_scores=np.array([1.0, 2.0], np.float32),
    )
    path = tmp_path / "long.html"
    path.write_text(render_report(ReportData(title="x", contigs=[track])), encoding="utf-8")
    browser.open(path, f"#region=chr1:{length - 99}-{length}&at={length - 1}")
    heading, rows = reading(browser)
    assert heading == f"Position {length - 1:,}"
    assert rows["Length"] == f"5 bases ({length - 4:,}\N{EN DASH}{length:,})"
    assert browser.complaints() == []


def test_an_empty_report_is_quiet(browser, tmp_path):
    path = tmp_path / "empty.html"
    path.write_text(render_report(ReportData(title="x", contigs=[])), encoding="utf-8")
    browser.open(path)
    assert browser.complaints() == []
    assert browser.run("document.getElementById('failure').hidden")
