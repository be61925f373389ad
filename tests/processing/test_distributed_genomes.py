"""Collections of genomes: resumed, killed, shared out, and always the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.errors import ConfigError, DataError, OutputExistsError, SystemProblem, UsageError
from hyena_glt.processing import process_genomes
from hyena_glt.processing.distributed_shards import ShardMaker
from hyena_glt.sequences.simulate import generate_random_genomic_sequence
from hyena_glt.tracks.provenance import Provenance

OPTIONS = {"shard_bases": 2000, "window": 256, "batch_size": 3, "device": "cpu"}


def small_net(seed: int = 0) -> HyenaGLT:
    config = HyenaGLTConfig.preset(
        "tiny", causal=False, genomic_vocab_size=4, alphabet="dna", hidden_size=32, local_hidden_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HyenaGLT(config, Patcher(patching_mode="static", patch_size=8)).eval()


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def genomes(tmp_path_factory) -> Path:
    """Five genomes of 1 to 3 records, one of them larger than a shard: 6 shards."""
    folder = tmp_path_factory.mktemp("genomes")
    for index, lengths in enumerate([(700,), (900, 300), (2500, 600, 2000), (1500,), (400, 400)]):
        records = (f">r{n}\n{generate_random_genomic_sequence(size, n)}\n" for n, size in enumerate(lengths))
        (folder / f"g{index}.fa").write_text("".join(records))
    return folder


@pytest.fixture(scope="module")
def net_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    small_net().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(genomes, net_folder, tmp_path_factory) -> Path:
    """The undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    process_genomes(genomes, net_folder, output=folder, **OPTIONS)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_record_has_a_row_in_input_order(genomes, net_folder, whole):
    notes: list[str] = []
    table = process_genomes(genomes, net_folder, output=whole, note=notes.append, **OPTIONS)
    assert (table.num_made, len(table.shards)) == (0, 6)
    rows = table.read().to_pylist()
    assert table.rows == len(rows) == 9
    assert [(row["genome"], row["record"]) for row in rows] == [
        (f"g{genome}", record) for genome, count in enumerate([1, 2, 3, 1, 2]) for record in range(count)
    ]
    assert [row["end"] for row in rows] == [700, 900, 300, 2500, 600, 2000, 1500, 400, 400]
    assert notes == ["5 genomes in 6 shards", "9 rows; 0 shards made, 6 were finished before"]


def test_the_manifest_names_every_hash(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["rows"] == 9
    assert [shard["file"] for shard in manifest["shards"]] == [f"shard-{n:06d}.parquet" for n in range(6)]
    assert all(len(shard["sha256"]) == 64 for shard in manifest["shards"])
    assert [genome["genome"] for genome in manifest["genomes"]] == ["g0", "g1", "g2", "g3", "g4"]
    assert all(len(genome["sha256"]) == 64 for genome in manifest["genomes"])
    assert "provenance" not in manifest
    assert str(whole) not in (whole / "manifest.json").read_text()


def test_a_live_net_gives_the_bytes_of_a_saved_one(genomes, whole, tmp_path):
    table = process_genomes(genomes, small_net(), output=tmp_path / "out", **OPTIONS)
    assert table.num_made == 6
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.usefixtures("one_thread")
def test_batches_do_not_cross_shards_so_any_order_gives_the_same_bytes(
    genomes, net_folder, whole, tmp_path, monkeypatch
):
    """World sizes 1 to 4, simulated: rank after rank makes its share of the shards that are missing."""
    from hyena_glt.processing.distributed_genomes import open_maker
    from hyena_glt.processing.distributed_plan import list_genomes
    from hyena_glt.processing.distributed_shards import EmbedOptions
    from hyena_glt.processing.sharding import balanced_shards

    assert torch.get_num_threads() == EmbedOptions().threads == 1
    for world in (1, 2, 3, 4):
        folder = tmp_path / str(world)
        with monkeypatch.context() as patch:
            patch.setattr(ShardMaker, "make", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                process_genomes(genomes, net_folder, output=folder, **OPTIONS)
        options = EmbedOptions(window=256, batch_size=3)
        makers = [open_maker(folder, list_genomes(genomes), options, torch.device("cpu")) for _ in range(world)]
        sizes = [shard.size for shard in makers[0].plan.shards]
        for maker, share in reversed(list(zip(makers, balanced_shards(sizes, world), strict=True))):
            for number in reversed(share.tolist()):
                maker.make(number)
        assert process_genomes(genomes, net_folder, output=folder, **OPTIONS).num_made == 0
        assert content(folder) == content(whole)


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("made_before", [0, 1, 4])
def test_an_interrupted_run_redoes_unfinished_shards_alone(
    genomes, net_folder, whole, tmp_path, monkeypatch, made_before
):
    make, made = ShardMaker.make, []

    def make_some(self, number):
        if len(made) == made_before:
            raise KeyboardInterrupt
        made.append(number)
        make(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(ShardMaker, "make", make_some)
        with pytest.raises(KeyboardInterrupt):
            process_genomes(genomes, net_folder, output=tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out/manifest.json").exists()
    table = process_genomes(genomes, net_folder, output=tmp_path / "out", **OPTIONS)
    assert table.num_made == 6 - made_before
    assert content(tmp_path / "out") == content(whole)


def test_damaged_files_are_made_again(genomes, net_folder, whole, tmp_path):
    folder = tmp_path / "out"
    process_genomes(genomes, net_folder, output=folder, **OPTIONS)
    (folder / "shard-000002.parquet").write_bytes(b"PAR1")
    (folder / "shard-000004.json").unlink()
    (folder / "net/model.safetensors").write_bytes(b"")
    (folder / "manifest.json").write_text("{}")
    assert process_genomes(genomes, net_folder, output=folder, **OPTIONS).num_made == 2
    assert content(folder) == content(whole)


def test_another_run_in_the_same_folder_is_refused_by_name(genomes, net_folder, whole, tmp_path):
    before = content(whole)
    few = [path for path in sorted(genomes.iterdir()) if path.name != "g1.fa"]
    for changes, message in [
        ({"model": small_net(1)}, "model_sha256: "),
        ({"patcher": Patcher(patching_mode="static", patch_size=9)}, "model_sha256: "),
        ({"window": 512}, r"options\.window: 256, now 512"),
        ({"per_record": False}, r"options\.per_record: True, now False"),
        ({"shard_bases": 9}, "shard_bases: 2000, now 9"),
        ({"paths": few}, r"genomes\[1\]: .*g1.*, now .*g2"),
    ]:
        with pytest.raises(ConfigError, match=rf"plan\.json: the run was begun with another .*{message}"):
            process_genomes(**{"paths": genomes, "model": net_folder, "output": whole, **OPTIONS, **changes})
    assert content(whole) == before


def test_force_begins_anew_and_leaves_other_files(genomes, net_folder, whole, tmp_path):
    folder = tmp_path / "out"
    process_genomes(genomes, small_net(1), output=folder, **{**OPTIONS, "shard_bases": 500})
    (folder / "mine.txt").write_text("x")
    table = process_genomes(genomes, net_folder, output=folder, force=True, **OPTIONS)
    assert table.num_made == 6
    (folder / "mine.txt").unlink()
    assert content(folder) == content(whole)


def test_shards_without_a_plan_are_not_written_over(genomes, net_folder, tmp_path):
    (tmp_path / "shard-000000.parquet").write_bytes(b"x")
    with pytest.raises(OutputExistsError, match=r"shard-000000\.parquet: exists already, of no plan"):
        process_genomes(genomes, net_folder, output=tmp_path, **OPTIONS)


def test_the_command_goes_into_the_manifest(genomes, net_folder, tmp_path):
    origin = Provenance(("hyena-glt", "embed"), {"model": "x"})
    process_genomes([genomes / "g0.fa"], net_folder, output=tmp_path / "o", provenance=origin, **OPTIONS)
    assert json.loads((tmp_path / "o/manifest.json").read_text())["provenance"]["command"] == "hyena-glt embed"


def test_what_cannot_be_meant_is_refused(genomes, net_folder, tmp_path, monkeypatch):
    (tmp_path / "n.fa").write_text(f">n\n{'N' * 100}\n")
    bare = HyenaGLT(HyenaGLTConfig.preset("tiny", hidden_size=32, local_hidden_size=16))
    for changes, kind, message in [
        ({"engine": "slurm"}, UsageError, "engine: expected one of local, torchrun, ray, got 'slurm'"),
        ({"paths": tmp_path / "absent.fa"}, DataError, "no such file"),
        ({"paths": tmp_path / "n.fa"}, DataError, "no letter in any genome"),
        ({"model": bare}, ConfigError, "patcher: expected a Patcher"),
        ({"batch_size": 0}, ConfigError, "batch_size: expected a whole number of at least 1"),
        ({"workers": 0, "engine": "ray"}, ConfigError, "workers: expected at least 1"),
    ]:
        with pytest.raises(kind, match=message):
            process_genomes(
                **{"paths": genomes, "model": net_folder, "output": tmp_path / kind.__name__, **OPTIONS, **changes}
            )
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="would do everything 2 times"):
        process_genomes(genomes, net_folder, output=tmp_path / "o", **OPTIONS)


def test_a_missing_ray_is_one_line(genomes, net_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemProblem, match=r"pip install 'hyena-glt\[ray\]'"):
        process_genomes(genomes, net_folder, output=tmp_path / "out", engine="ray", **OPTIONS)


# ---- processes -----------------------------------------------------------------------------------------------------


def run(engine: str, genomes: Path, net: Path, output: Path, *, die_at: str = "", processes: int = 1):
    """This file as a program, under torchrun where there are several processes."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    words = [*(launcher if engine == "torchrun" else []), __file__, engine, genomes, net, output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIE_AT": die_at}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(genomes, net_folder, whole, tmp_path):
    """SIGKILL of one of two ranks while it makes a shard; then the same again, to the same bytes."""
    killed = run("torchrun", genomes, net_folder, tmp_path / "out", die_at="1:2", processes=2)
    assert killed.returncode != 0
    finished = len(list((tmp_path / "out").glob("shard-*.json")))
    assert 1 <= finished < 6
    assert not (tmp_path / "out/manifest.json").exists()
    again = run("torchrun", genomes, net_folder, tmp_path / "out", processes=2)
    assert again.returncode == 0, again.stderr
    assert f"made {6 - finished}" in again.stdout
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_of_torchrun_give_the_bytes_of_one(genomes, net_folder, whole, tmp_path, processes):
    done = run("torchrun", genomes, net_folder, tmp_path / "out", processes=processes)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_process_goes_on(genomes, net_folder, whole, tmp_path, after):
    killed = run("local", genomes, net_folder, tmp_path / "out", die_at=f"0:{after}")
    assert killed.returncode == -signal.SIGKILL
    again = run("local", genomes, net_folder, tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert f"made {6 - after + 1}" in again.stdout
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_one_process(genomes, net_folder, whole, tmp_path):
    """A cluster of two cores on this machine; a genome that is malformed is one line there as well."""
    pytest.importorskip("ray")
    done = run("ray", genomes, net_folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "made 6" in done.stdout
    assert "DataError bad.fa:2" in done.stdout
    assert content(tmp_path / "out") == content(whole)


@pytest.mark.slow
def test_an_actor_killed_in_the_middle_loses_nothing(net_folder, tmp_path):
    """SIGKILL of one of two actors of Ray after its first shards; Ray starts another one, or the same again goes on."""
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    genomes, output = tmp_path / "genomes", tmp_path / "out"
    genomes.mkdir()
    for index in range(60):
        (genomes / f"g{index:02d}.fa").write_text(f">r\n{generate_random_genomic_sequence(9000, seed=index)}\n")
    process_genomes(genomes, net_folder, output=tmp_path / "whole", **OPTIONS)
    words = [sys.executable, __file__, "ray", str(genomes), str(net_folder), str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIE_AT": ""}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        while not any(output.glob("shard-*.json")):
            assert started.poll() is None
            time.sleep(0.005)
        family = psutil.Process(started.pid).children(recursive=True)
        actors = [process for process in family if "RayShardWorker" in " ".join(process.cmdline())]
        actors[0].kill()
        finished = len(list(output.glob("shard-*.json")))
        _, problems = started.communicate(timeout=300)
    assert len(actors) == 2
    assert finished < 60
    if started.returncode:
        assert "run the same again to go on" in problems
        assert run("ray", genomes, net_folder, output).returncode == 0
    assert content(output) == content(tmp_path / "whole")


def as_program(engine: str, genomes: str, net: str, output: str) -> None:
    """What a process of the tests above does; with `DIE_AT=RANK:N` a rank is killed in its shard number N."""
    rank, _, wanted = os.environ["DIE_AT"].partition(":")
    make, begun = ShardMaker.make, []

    def make_or_die(self, number):
        begun.append(number)
        if os.environ.get("RANK", "0") == rank and len(begun) == int(wanted):
            (self.folder / f".shard-{number:06d}.parquet.{os.getpid()}.tmp").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        make(self, number)

    if wanted:
        ShardMaker.make = make_or_die
    table = process_genomes(genomes, net, output=output, engine=engine, workers=2, **OPTIONS)
    print(f"made {table.num_made}")
    if engine == "ray":
        bad = Path(output).with_name("bad.fa")
        bad.write_text(">a\nAC GT\n")
        try:
            process_genomes(bad, net, output=f"{output}.bad", engine=engine, workers=2, **OPTIONS)
        except DataError as problem:
            print(f"{type(problem).__mro__[1].__name__} {str(problem).rpartition('/')[2]}")


if __name__ == "__main__":
    as_program(*sys.argv[1:])
