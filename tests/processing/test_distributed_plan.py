"""Collections of genomes are listed in a fixed order and cut into shards that hold every record once."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError, HyenaGLTError, ModelFileError
from hyena_glt.processing.distributed_plan import Part, Plan, Shard, differences, list_genomes, plan_shards


def write(path: Path, *lengths: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [f">r{index}\n{('ACGT' * length)[:length]}\n" for index, length in enumerate(lengths)]
    text = "".join(records)
    path.write_text(text)
    return path


def planned(genomes, shard_bases):
    return plan_shards(genomes, shard_bases, alphabet="dna", degap=False)


def test_a_folder_is_listed_by_name(tmp_path):
    for name in ("b.fa", "a.fasta", "deep/c.fna", "notes.txt", ".hidden.fa"):
        write(tmp_path / name, 8)
    (tmp_path / "z.fa.gz").write_bytes(gzip.compress(b">r\nACGT\n"))
    genomes = list_genomes(tmp_path)
    assert [genome.name for genome in genomes] == ["a", "b", "deep/c", "z"]
    assert [genome.size for genome in genomes] == [genome.path.stat().st_size for genome in genomes]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "parquet"])
def test_a_table_names_genomes(tmp_path, suffix):
    write(tmp_path / "g/one.fa", 8)
    write(tmp_path / "g/two.fa", 8)
    table = tmp_path / f"genomes.{suffix}"
    rows = {"genome": ["second", ""], "path": ["g/two.fa", "g/one.fa"]}
    if suffix == "parquet":
        pq.write_table(pa.table(rows), table)
    else:
        mark = "\t" if suffix == "tsv" else ","
        table.write_text("\n".join(mark.join(row) for row in [rows.keys(), *zip(*rows.values(), strict=True)]) + "\n")
    assert [genome.name for genome in list_genomes(table)] == ["second", "one"]
    assert list_genomes([table])[0].path == tmp_path / "g/two.fa"


def test_what_is_no_collection_is_refused_by_name(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "t.tsv").write_text("file\nx.fa\n")
    (tmp_path / "u.tsv").write_text("path\tgenome\nabsent.fa\tx\n")
    (tmp_path / "v.tsv").write_text("path\tgenome\n\tx\n")
    (tmp_path / "w.parquet").write_bytes(b"PAR1")
    write(tmp_path / "d/one.fa", 8)
    write(tmp_path / "d/one.fna", 8)
    for path, message in [
        (empty, "no sequence file in the folder"),
        (tmp_path / "t.tsv", "column 'path'"),
        (tmp_path / "u.tsv", r"absent\.fa: no such file"),
        (tmp_path / "v.tsv", r"v\.tsv:2: expected a path"),
        (tmp_path / "w.parquet", "not a Parquet table"),
        (tmp_path / "nothing.fa", "no such file"),
        (tmp_path / "nothing.csv", "no such file"),
        (tmp_path / "d", "'one' is there twice"),
        ([], "no genome"),
    ]:
        with pytest.raises(DataError, match=message):
            list_genomes(path)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 200))
def test_every_genome_is_in_one_shard_once(tmp_path_factory, lengths, shard_bases):
    folder = tmp_path_factory.mktemp("genomes", numbered=True)
    genomes = list_genomes([write(folder / f"{index:02d}.fa", length) for index, length in enumerate(lengths)])
    parts = [part for shard in planned(genomes, shard_bases) for part in shard.parts]
    assert parts == [Part(index, 0, None) for index in range(len(lengths))]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 200))
def test_every_record_of_a_large_genome_is_in_one_shard_once(tmp_path_factory, lengths, shard_bases):
    path = write(tmp_path_factory.mktemp("genome", numbered=True) / "g.fa", *lengths)
    shards = planned(list_genomes(path), shard_bases)
    parts = [part for shard in shards for part in shard.parts]
    assert parts[0].first == 0
    assert parts[-1].last is None
    assert all(part.last == following.first for part, following in pairwise(parts))
    if len(parts) > 1:
        own = [sum(lengths[part.first : part.last]) for part in parts]
        assert [shard.size for shard in shards] == own
        assert all(
            size <= shard_bases or part.last == part.first + 1 for size, part in zip(own[:-1], parts, strict=False)
        )


def test_small_genomes_share_shards_and_large_ones_do_not(tmp_path):
    files = [write(tmp_path / f"{i}.fa", *lengths) for i, lengths in enumerate([(90,), (90,), (300, 300), (90,)])]
    assert [shard.parts for shard in planned(list_genomes(files), 310)] == [
        (Part(0, 0, None), Part(1, 0, None)),
        (Part(2, 0, 1),),
        (Part(2, 1, None),),
        (Part(3, 0, None),),
    ]
    with pytest.raises(ConfigError, match="shard_bases"):
        planned(list_genomes(files), 0)


def test_a_plan_comes_back(tmp_path):
    plan = Plan({"a": [1], "b": {"c": None}}, (Shard((Part(0, 0, None), Part(1, 2, 3)), 7),))
    assert Plan.read(tmp_path) is None
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan


@pytest.mark.parametrize("text", ["", "[]", '{"format": "x"}', '{"format": "hyena-glt/genomes/1", "shards": [1]}'])
def test_a_damaged_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"plan\.json"):
        Plan.read(tmp_path)
    assert issubclass(ModelFileError, HyenaGLTError)


def test_differences_are_named_by_path():
    old = {"a": 1, "b": {"c": 2, "d": [1, {"e": 1}]}}
    assert list(differences(old, old)) == []
    new = {"a": 1, "b": {"c": 3, "d": [1, {"e": 2}, 3]}}
    assert list(differences(old, new)) == ["b.c: 2, now 3", "b.d[1]: {'e': 1}, now {'e': 2}"]
    assert list(differences({"g": [1]}, {"g": [1, 2]})) == ["g[1]: None, now 2"]
