"""`hyena-glt demo`: the whole chain, from nothing."""

from __future__ import annotations

import json


def test_the_demo_writes_everything(cli, tmp_path):
    done = cli("demo", "-o", tmp_path / "demo", "--length", "40000")
    assert done.code == 0, done.err
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    assert written >= {"genome.fa", "genome.gff3", "patches.bed.gz", "patches.bed.gz.tbi", "stats.json"}
    assert written >= {"entropy.bw", "windows.parquet", "report.html", "patcher.json"}
    assert json.loads((tmp_path / "demo" / "stats.json").read_text())["bases"] == 40_000
    assert cli("demo", "-o", tmp_path / "demo", "--length", "40000").code == 2
    assert cli("demo", "-o", tmp_path / "demo", "--length", "40000", "--force").code == 0
