"""`hyena-glt train-bpe`: a BPE tokenizer of one's own genome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note, prefetched, progress

if TYPE_CHECKING:
    from hyena_glt.tracks.provenance import Provenance

SIDECAR = ".provenance.json"  # the format of a tokenizer has no room for it


def train_bpe(
    genomes: Annotated[
        list[Path], typer.Argument(metavar="GENOME", help="FASTA or FASTQ, plain, gzip or BGZF; - is stdin.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The tokenizer (JSON); its provenance is put beside it. - is stdout.")
    ] = Path("tokenizer.json"),
    vocab_size: Annotated[int, typer.Option("--vocab-size", min=1, help="Entries wanted, letters among them.")] = 4096,
    piece_length: Annotated[
        int, typer.Option("--piece-length", min=2, help="Symbols taken together; no word crosses from one to the next.")
    ] = 256,
    min_frequency: Annotated[
        int, typer.Option("--min-frequency", min=1, help="Times a pair has to occur to be merged.")
    ] = 2,
    max_symbols: Annotated[
        int,
        typer.Option(
            "--max-symbols", min=2, help="Train on a sample of this size of a larger input; about 65 bytes each."
        ),
    ] = 1 << 24,
    alphabet: opt.Alphabet = opt.AlphabetName.dna,
    degap: opt.Degap = False,
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Learn the most frequent words of genomes, for patches of --mode bpe.

    Lower case counts as upper case; N and other ambiguous symbols are never part of a longer word.

    Examples:

    hyena-glt train-bpe genome.fa --vocab-size 512 -o tokenizer.json

    hyena-glt patch other.fa --mode bpe --tokenizer tokenizer.json -o out.bed
    """
    import json
    from contextlib import ExitStack

    from hyena_glt.cli.outputs import STDOUT, command_line, same_file
    from hyena_glt.cli.source import counted, open_genome
    from hyena_glt.errors import ConfigError, UsageError
    from hyena_glt.sequences.atomic import atomic_write
    from hyena_glt.tokens.bpe_training import PieceSampler, check_vocab_size, train_on_pieces
    from hyena_glt.tracks.provenance import Provenance

    if as_json and output == STDOUT:
        raise UsageError("--json and -o -: both would write to stdout; give -o FILE")
    if genomes.count(STDOUT) > 1:
        raise UsageError("-: standard input is named twice")
    same_file([*(path for path in genomes if path != STDOUT), output])
    try:
        check_vocab_size(vocab_size, alphabet.value)
        sampler = PieceSampler(alphabet.value, piece_length=piece_length, max_symbols=max_symbols, seed=seed)
    except ConfigError as problem:
        raise UsageError(str(problem)) from None
    with ExitStack() as files:
        sources = [
            files.enter_context(open_genome(path, alphabet.value, degap=degap, reread=path == STDOUT))
            for path in genomes
        ]
        names, hashes = [source.name for source in sources], [source.sha256 for source in sources]
        one = len(sources) == 1
        origin = Provenance(
            command_line(), {"input": names[0] if one else names, "input_sha256": hashes[0] if one else hashes}
        )
        if not force and _is_done(output, origin):
            return
        with progress("reading") as advance:
            for source in sources:
                sampler.feed(counted(source.all_blocks(), advance))
    training = (
        train_on_pieces(pieces, vocab_size, alphabet=alphabet.value, min_frequency=min_frequency)
        for pieces in [sampler.pieces()]
    )
    tokenizer = next(prefetched(training, threads=2))  # in the background: it hears no signal until it is done
    facts = _facts(tokenizer, sampler)
    text = tokenizer.to_str(pretty=True) + "\n"
    if output != STDOUT:
        _write_sidecar(output, origin.extended(facts), text)
    with atomic_write(output, "w", overwrite=True) as handle:
        handle.write(text)
    if as_json:
        print(json.dumps({"tokenizer": str(output), **facts}, indent=2))
    fewer = f" ({vocab_size:,} were asked for, nothing else repeats)" if facts["vocab_size"] < vocab_size else ""
    note(
        f"{facts['vocab_size']:,} entries{fewer}, the longest of {facts['longest_entry']} symbols, "
        f"from {facts['trained_symbols']:,} of {facts['symbols']:,} symbols"
        + ("" if output == STDOUT else f"; wrote {output}")
    )


def _facts(tokenizer: Any, sampler: Any) -> dict[str, Any]:
    """What outputs say about the tokenizer."""
    from hyena_glt.tokens.bpe_training import UNKNOWN

    pieces = sampler.pieces()
    return {
        "alphabet": sampler.alphabet.name,
        "vocab_size": tokenizer.get_vocab_size(),
        "longest_entry": max(len(entry) for entry in tokenizer.get_vocab() if entry != UNKNOWN),
        "symbols": sampler.symbols,
        "trained_symbols": sum(map(len, pieces)),
        "pieces": len(pieces),
    }


def _sidecar(output: Path) -> Path:
    return output.with_name(output.name + SIDECAR)


def _write_sidecar(output: Path, origin: Provenance, text: str) -> None:
    """Say where the tokenizer comes from; it is written first, and counts only with the file whose hash it has."""
    import hashlib

    from hyena_glt.cli.outputs import write_json

    sha256 = hashlib.sha256(text.encode()).hexdigest()
    write_json(_sidecar(output), {"provenance": origin.as_dict(), "tokenizer_sha256": sha256})


def _is_done(output: Path, origin: Provenance) -> bool:
    """Whether the output is there and was made by this command from this input.

    Raises:
        OutputExistsError: It is there and was not.
    """
    import json

    from hyena_glt.cli.outputs import STDOUT, read_provenance
    from hyena_glt.errors import OutputExistsError
    from hyena_glt.sequences.atomic import sha256_file

    if output == STDOUT or not output.exists():
        return False
    expected, found = origin.as_dict(), read_provenance(_sidecar(output))
    same = all(found.get(key) == expected[key] for key in ("hyena_glt_version", "command", "input_sha256"))
    if not same or json.loads(_sidecar(output).read_text()).get("tokenizer_sha256") != sha256_file(output):
        raise OutputExistsError(f"{output}: exists already; give --force to replace it")
    note(f"already done: {output}")
    return True
