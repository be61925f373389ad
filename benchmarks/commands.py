"""Each command of the applications on real files: seconds, peak memory, and what another program finds in the output.

    python benchmarks/commands.py DATA [--only variants trees ...] [--scratch FOLDER] [--threads 2] [--window 512]
        [--json out.json]

DATA holds `genomes/`, `human/`, `phylo/` and `variants/`. Each command runs in a process of its own; its wall and CPU
seconds and its peak resident memory are those that the system reports for that process. Outputs are read by another
program's reader (htslib through pysam, pyarrow, scikit-bio) and the last column says what was found; a check that fails
stops the script. Outputs stay in `--scratch`, so that figures can be looked at; a row whose command ended with another
exit code than expected stops it too. The long lists of variants (1000 Genomes, ClinVar) are scored in windows of
`--window` bases, all others as the command does by itself.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pysam
import skbio
from child_usage import run_measured
from machine import machine

from hyena_glt.sequences.fasta import read_records

KEYS = ("HGLT_LLR", "HGLT_DIST", "HGLT_DPATCH", "HGLT_DVAR", "HGLT_DCOMP", "HGLT_REASON")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command line and how its output is looked at."""

    words: tuple[str | Path, ...]
    check: Callable[[], str]
    stdin: Path | None = None
    stdout: Path | None = None


@dataclass(slots=True)
class Scratch:
    """Inputs made ready, outputs, and paths of the real data."""

    data: Path
    folder: Path
    threads: int
    window: int
    cases: list[Case] = field(default_factory=list)

    def add(self, check: Callable[[], str], *words: str | Path, **streams: Path) -> None:
        """One more command, and how its output is looked at."""
        self.cases.append(Case(words=words, check=check, **streams))

    def text(self, name: str) -> str:
        """A real text file, packed or not."""
        raw = (self.data / name).read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()

    def save(self, name: str, text: str) -> Path:
        """An input that differs from the real file in what the caller says."""
        (self.folder / name).write_text(text)
        return self.folder / name


def main() -> None:
    """Run, print the table, write the JSON."""
    sections = {
        "variants": variants_cases,
        "trees": trees_cases,
        "embed": embed_cases,
        "stream": stream_cases,
        "diagnostics": diagnostics_cases,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--scratch", type=Path, help="keep the outputs here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.scratch or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Scratch(options.data, folder, options.threads, options.window)
        for section in options.only:
            sections[section](scratch)
        rows = [run(case, scratch) for case in scratch.cases]
    print(as_table(rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


def run(case: Case, scratch: Scratch) -> dict[str, Any]:
    """Run one command by itself and look at what it wrote."""
    words = [sys.executable, "-m", "hyena_glt", *map(str, case.words)]
    shown = shlex.join(["hyena-glt", *(str(word).removeprefix(f"{scratch.folder}/") for word in case.words)])
    shown = shown.replace(f"{scratch.data}/", "")
    print(shown, file=sys.stderr, flush=True)
    with (
        (case.stdin or Path(os.devnull)).open("rb") as source,
        (case.stdout or Path(os.devnull)).open("wb") as target,
        tempfile.TemporaryFile() as said,
    ):
        usage = run_measured(words, stdin=source, stdout=target, stderr=said)
        said.seek(0)
        if usage.exit_code:
            raise SystemExit(f"{shown}: exit code {usage.exit_code}: {said.read().decode()[-400:]}")
    found = {
        "command": shown,
        "wall_s": usage.wall_s,
        "cpu_s": usage.cpu_s,
        "peak_mib": usage.peak_bytes / (1 << 20),
        "found": case.check(),
    }
    seconds = f"{found['wall_s']:.1f} s, CPU {found['cpu_s']:.1f} s"
    print(f"    {seconds}, {found['peak_mib']:.0f} MiB: {found['found']}", file=sys.stderr, flush=True)
    return found


def variants_cases(scratch: Scratch) -> None:
    """VCFs of many kinds, each against its reference."""
    data, window, threads = scratch.data, ["--window", str(scratch.window)], ["-@", str(scratch.threads)]
    region = "variants/BRCA1_GRCh37_chr17_41100001-41300000.fa.gz"
    mitochondrion = scratch.text("genomes/human_mtDNA_rCRS.fasta").replace(">rCRS", ">MT", 1)
    structural = scratch.text("variants/spec_sv44.vcf").partition("chr_seq=")[2].partition("\n")[0]
    for reference, calls, more in (
        (data / "human/grch37_chr20_1Mb_z.fa.gz", "variants/1kgp_chr20_1Mb_z.vcf.gz", window),
        (data / "human/hg19_chr20_partial_softmasked.fa.gz", "variants/giab_HG001_hg19_chr20_100kb.vcf.gz", []),
        (data / region, "variants/clinvar2018_BRCA1_GRCh37_region.vcf.gz", window),
        (scratch.save("MT.fa", mitochondrion), "variants/1kgp_HG00097_mtDNA.vcf.gz", window),
        (copied(scratch, "variants/EMN908947.fa"), "variants/sarscov2_simple.vcf", []),
        (copied(scratch, "variants/EMN908947.fa"), "variants/sarscov2_ribosomal-slippage.vcf", []),
        (copied(scratch, "variants/norm.fa"), "variants/norm.vcf", ["--on-bad-record", "skip"]),
        (scratch.save("chrA.fa", f">chrA\n{structural}\n"), "variants/spec_sv44.vcf", ["--on-bad-record", "skip"]),
    ):
        output = scratch.folder / f"{Path(calls).name.partition('.')[0]}.scored.vcf.gz"
        check = partial(scored, scratch, calls, output)
        scratch.add(check, "variants", reference, data / calls, "-o", output, "-W", *threads, *more)


def copied(scratch: Scratch, name: str) -> Path:
    """A reference beside which an index may be written."""
    return scratch.save(Path(name).name, scratch.text(name))


def scored(scratch: Scratch, calls: str, output: Path) -> str:
    """What htslib reads; all but our INFO keys must be as it was, records left out must be listed."""
    with gzip.open(output, "rt") as handle:
        after = [line.rstrip("\n").split("\t") for line in handle if line[0] != "#"]
    left_out = output.with_name(f"{output.name}.skipped.tsv")
    listed = left_out.read_text().splitlines() if left_out.exists() else ["line"]
    num_left_out = sum(not line.startswith("##") for line in listed) - 1  # a line of names stands above them
    source = [line.split("\t") for line in scratch.text(calls).splitlines() if line and line[0] != "#"]
    kept = iter(source)
    for columns in after:
        info = ";".join(item for item in columns[7].split(";") if item.partition("=")[0] not in KEYS) or "."
        expected = [*columns[:7], info, *columns[8:]]
        if all(record != expected for record in kept):  # the order stays, so each is found behind the one before
            raise SystemExit(f"{output}: a record that the input does not have: {expected[:5]}")
    if len(after) + num_left_out != len(source):
        raise SystemExit(f"{output}: {len(source)} records in, {len(after)} out, {num_left_out} listed as left out")
    with pysam.TabixFile(str(output)) as file:
        by_index = sum(1 for contig in file.contigs for _ in file.fetch(contig))
    if by_index != len(after):
        raise SystemExit(f"{output}: the index gives {by_index} of {len(after)} records")
    if num_left_out == 0 and num_parsed(output) != num_parsed(scratch.data / calls):
        raise SystemExit(f"{output}: htslib reads another number of records than in the input")
    infos = (dict(item.partition("=")[::2] for item in columns[7].split(";")) for columns in after)
    reasons = Counter(reason for info in infos for reason in info["HGLT_REASON"].split(","))
    scores = reasons.pop(".", 0)
    words = [f"{len(after):,} records, unchanged but for our keys; {scores:,} alleles scored"]
    words += [f"{number} {reason}" for reason, number in sorted(reasons.items())]
    return ", ".join(words) + (f"; {num_left_out} left out and listed" if num_left_out else "")


def num_parsed(path: Path) -> int | None:
    """Records that pysam parses; None where it stops: at INFO keys in quotes, and at plain gzip."""
    try:
        with pysam.VariantFile(str(path)) as file:
            return sum(1 for _ in file)
    except (OSError, ValueError, NotImplementedError):
        return None


def trees_cases(scratch: Scratch) -> None:
    """Distances and trees of the sets that have a reference tree."""
    for name in ("zika.fasta.gz", "h3n2_na_20.fasta", "primate_brca1.fasta", "mammal_mtDNA_7.fasta.gz"):
        stem = name.partition(".")[0]
        num_genomes = sum(line[0] == ">" for line in scratch.text(f"phylo/{name}").splitlines() if line)
        matrix, newick = scratch.folder / f"{stem}.phy", scratch.folder / f"{stem}.nwk"
        source, threads = scratch.data / "phylo" / name, ["-@", str(scratch.threads), "--force", "--degap"]
        check = partial(matrix_found, matrix, num_genomes)
        scratch.add(check, "distances", source, "-o", matrix, "--plot", matrix.with_suffix(".png"), *threads)
        check = partial(tree_found, newick, num_genomes)
        scratch.add(check, "tree", source, "-o", newick, "--plot", newick.with_suffix(".nwk.png"), *threads)


def matrix_found(path: Path, num_genomes: int) -> str:
    """A PHYLIP matrix, as scikit-bio reads it."""
    matrix = skbio.DistanceMatrix.read(str(path), format="phylip_dm", strict=False)
    if len(matrix.ids) != num_genomes:
        raise SystemExit(f"{path}: {len(matrix.ids)} genomes, expected {num_genomes}")
    values = matrix.condensed_form()
    return f"{num_genomes} genomes, distances {values.min():.3g} to {values.max():.3g}"


def tree_found(path: Path, num_genomes: int) -> str:
    """A Newick tree, as scikit-bio reads it."""
    tree = skbio.TreeNode.read(str(path), format="newick")
    if tree.count(tips=True) != num_genomes:
        raise SystemExit(f"{path}: {tree.count(tips=True)} tips, expected {num_genomes}")
    supports = [float(node.name) for node in tree.non_tips() if node.name]
    return f"{num_genomes} tips, {len(supports)} supports, {sum(value >= 70 for value in supports)} of 70 % or more"


def embed_cases(scratch: Scratch) -> None:
    """A table per record, region and patch."""
    threads = ["-@", str(scratch.threads), "--force"]
    genome = scratch.data / "genomes/mgenitalium_NC_000908.2.fa.gz"
    rows = [line.split("\t") for line in scratch.text("genomes/mgenitalium_NC_000908.2.gff.gz").splitlines()]
    contig = next(read_records(genome)).name
    genes = ((int(row[3]) - 1, row[4]) for row in rows if len(row) > 4 and row[2] == "gene")
    bed = scratch.save("genes.bed", "".join(f"{contig}\t{start}\t{end}\n" for start, end in genes))
    ecoli = scratch.data / "genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz"
    for name, source, *more in (
        ("zika.parquet", scratch.data / "phylo/zika.fasta.gz", "--degap"),
        ("genes.parquet", genome, "-R", bed, "--per", "region", "--rc", "avg"),
        ("patches.parquet", genome, "--pool", "patch"),
        ("windows.parquet", ecoli, "--per", "window"),
    ):
        output = scratch.folder / name
        scratch.add(partial(table_found, output), "embed", source, "-o", output, *more, *threads)


def table_found(path: Path) -> str:
    """A Parquet table, as pyarrow reads it; no value may be missing or infinite."""
    table = pq.read_table(path)
    vectors = table.column("embedding").combine_chunks()
    values = vectors.flatten().to_numpy(zero_copy_only=False)
    if not (abs(values) < float("inf")).all():
        raise SystemExit(f"{path}: a value is not finite")
    return f"{table.num_rows:,} rows of {len(values) // max(table.num_rows, 1)} numbers, all finite"


def stream_cases(scratch: Scratch) -> None:
    """Patches of a stream, which must cover every base once."""
    for name in ("human/hg19_chr20_partial_softmasked.fa.gz", "genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz"):
        output = scratch.folder / f"{Path(name).name.partition('.')[0]}.bed"
        lengths = {record.name: len(record.sequence) for record in read_records(scratch.data / name)}
        words = ["stream", "-", "--entropy-model", "mix", "--threshold", "1.37", "--max-patch-length", "64"]
        scratch.add(partial(bed_found, output, lengths), *words, stdin=scratch.data / name, stdout=output)


def bed_found(path: Path, lengths: dict[str, int]) -> str:
    """A BED whose rows lie end to end."""
    ends: Counter[str] = Counter()
    rows = 0
    with path.open() as handle:
        for line in handle:
            if line[0] == "#":
                continue
            contig, start, end = line.split("\t")[:3]
            if int(start) != ends[contig]:
                raise SystemExit(f"{path}: {contig}:{start} does not follow {ends[contig]}")
            ends[contig], rows = int(end), rows + 1
    if dict(ends) != lengths:
        raise SystemExit(f"{path}: ends {dict(ends)}, expected {lengths}")
    return f"{rows:,} patches end to end over {sum(lengths.values()):,} bases"


def diagnostics_cases(scratch: Scratch) -> None:
    """Where the time goes, and whether patching pays."""
    genome, page, trace = (
        scratch.data / "genomes/lambda_NC_001416.1.fa",
        scratch.folder / "bench.html",
        scratch.folder / "trace.json",
    )
    threads = ["-@", str(scratch.threads), "--force"]
    stages = scratch.folder / "profile.json"
    scratch.add(
        partial(stages_found, stages, trace), "profile", genome, "--json", "--trace", trace, *threads, stdout=stages
    )
    lengths = ["--lengths", "8192", "--patch-lengths", "8,16"]
    scratch.add(partial(page_found, page), "bench", genome, *lengths, "-o", page, *threads)


def stages_found(stages: Path, trace: Path) -> str:
    """The stages of a forward and the events of its trace."""
    found, events = json.loads(stages.read_text()), json.loads(trace.read_text())["traceEvents"]
    return f"{len(found['stages'])} stages, {len(events):,} events in the trace"


def page_found(page: Path) -> str:
    """The size of a page; what it shows is for the eye."""
    return f"a page of {page.stat().st_size / 1024:.0f} KiB"


def as_table(rows: list[dict[str, Any]]) -> str:
    """The result as Markdown."""
    lines = [machine(), "", "| command | wall, s | CPU, s | peak, MiB | found by another reader |"]
    lines += ["| --- " * 5 + "|"]
    for row in rows:
        numbers = [f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", f"{row['peak_mib']:.0f}"]
        lines.append(f"| `{row['command']}` | {' | '.join(numbers)} | {row['found']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
