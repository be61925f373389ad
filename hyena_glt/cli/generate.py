"""`hyena-glt generate`: continue sequences letter by letter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import note, progress
from hyena_glt.errors import UsageError

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT
    from hyena_glt.sequences.records import Record
    from hyena_glt.tracks.provenance import Provenance

PATCH_SIZE = 16.0  # bases of the static patches of an untrained net


def generate(
    prompts: Annotated[
        Path | None, typer.Argument(help="Prompts as FASTA or FASTQ, plain, gzip or BGZF; - is stdin.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="A prompt itself; may be repeated.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="FASTA (.gz for BGZF), with a .json beside it; - is stdout.")
    ] = Path("-"),
    model: opt.NetFolder = None,
    untrained: opt.Untrained = False,
    size: opt.SizeOfUntrained = opt.NetSize.tiny,
    letters: Annotated[int, typer.Option("--letters", "-n", min=1, help="Letters to draw for each sequence.")] = 100,
    count: Annotated[int, typer.Option("--count", min=1, help="Sequences for each prompt.")] = 1,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest letter; 1 draws as the net says.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Draw among so many likeliest letters.")] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Draw among the likeliest letters of this probability, (0, 1].")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End after this text; may be repeated.")] = None,
    new_only: Annotated[bool, typer.Option("--new-only", help="Leave the prompts out of the sequences.")] = False,
    patcher: opt.Patcher = None,
    alphabet: Annotated[
        opt.AlphabetName | None,
        typer.Option("--alphabet", help="Of prompts and letters: dna, rna or protein. Default: the model's, else dna."),
    ] = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    force: opt.Force = False,
) -> None:
    """Continue prompts by letters that the model draws one by one; patches are decided as they come.

    The patcher is the model's own unless --patcher names another; an untrained net has static patches of 16. Each
    record says how many of its letters are the prompt, and the mean log-probability of the new ones in nats.

    Examples:

    hyena-glt generate --prompt ACGTACGT -n 50

    hyena-glt generate --model net prompts.fa -n 1000 --count 5 --temperature 0.8 --top-p 0.95 -o new.fa
    """
    from hyena_glt.cli.outputs import STDOUT, already_done, same_file, write_json
    from hyena_glt.sequences.atomic import open_output
    from hyena_glt.sequences.fasta import write_fasta

    if (prompts is None) == (not prompt):
        raise UsageError("give prompts as a FASTA file or by --prompt, one of them")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"--top-p: expected a probability in (0, 1], got {top_p}")
    if alphabet is opt.AlphabetName.bytes:
        raise UsageError("--alphabet bytes: any byte would break FASTA; expected dna, rna or protein")
    sidecar = output.with_name(f"{output.name}.json")
    same_file([*(path for path in (prompts, patcher) if path and path != STDOUT), output, sidecar])
    origin = _origin(prompts, prompt or [], (patcher, model))
    if already_done([output] if output == STDOUT else [output, sidecar], lambda: origin, force):
        return
    net, weights = load_generator(model, untrained, size.value, alphabet, patcher, seed, device, threads)
    written = alphabet.value if alphabet else _alphabet_of(net)
    asked = _read_prompts(prompts, prompt or [], written)
    options = {
        "max_new_tokens": letters,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "alphabet": written,
        "num_return_sequences": count,
        "stop": stop,
        "include_prompt": not new_only,
    }
    with progress("generating", len(asked) * count, "sequences") as advance, open_output(output, overwrite=True) as out:
        write_fasta(out, _continuations(net, asked, options, advance))
    if output != STDOUT:
        details = {"weights": weights, **{key: value for key, value in options.items() if value is not None}}
        write_json(sidecar, {"provenance": origin.extended(details).as_dict()})
    note(f"{weights}: {len(asked) * count:,} sequences of up to {letters:,} new letters in {output}")


def load_generator(
    folder: Path | None,
    untrained: bool,
    size: str,
    alphabet: opt.AlphabetName | None,
    patcher: Path | None,
    seed: int,
    device: str,
    threads: int | None,
) -> tuple[HyenaGLT, str]:
    """A net with its patcher, and what its weights are; `open_net` has the arguments.

    Raises:
        SystemProblem: CUDA is asked for and not there.
        ModelFileError: The folder or the patcher is not sound.
    """
    from hyena_glt.cli.nets import open_net
    from hyena_glt.patching import Patcher, PatchingModeEnum

    cutter = None if patcher is None else Patcher.load(patcher)
    if untrained and cutter is None:
        cutter = Patcher(patching_mode=PatchingModeEnum.static, patch_size=PATCH_SIZE)
    return open_net(
        folder,
        untrained=untrained,
        size=size,
        alphabet=alphabet.value if alphabet else "dna",
        seed=seed,
        device=device,
        threads=threads or opt.default_threads(),
        patcher=cutter,
    )


def _alphabet_of(net: HyenaGLT) -> str:
    """The net's alphabet; nets over bytes are taken for DNA."""
    return "dna" if net.config.alphabet_name == "bytes" else net.config.alphabet_name


def _origin(prompts: Path | None, texts: list[str], beside: Iterable[Path | None]) -> Provenance:
    from hyena_glt.cli.outputs import STDOUT, command_line
    from hyena_glt.sequences.atomic import sha256_file
    from hyena_glt.tracks.provenance import Provenance, beside_details

    if prompts is None:
        return Provenance(command_line(), {"prompts": texts, **beside_details(beside)})
    digest = None if prompts == STDOUT else sha256_file(prompts)
    return Provenance(command_line(), {"input": str(prompts), "input_sha256": digest, **beside_details(beside)})


def _read_prompts(prompts: Path | None, texts: list[str], alphabet: str) -> list[Record]:
    """Checked prompts with names.

    Raises:
        DataError: A symbol outside the alphabet, an empty prompt, or a file that is no FASTA.
    """
    from hyena_glt.errors import DataError
    from hyena_glt.sequences.alphabets import get_alphabet
    from hyena_glt.sequences.fasta import read_records
    from hyena_glt.sequences.records import Record

    if prompts is not None:
        records = list(read_records(prompts, alphabet=alphabet))
    else:
        records = [Record(f"prompt_{number}", "", text.encode(), 0) for number, text in enumerate(texts, start=1)]
        for record in records:
            get_alphabet(alphabet).encode(record.sequence, record=record.name)
    empty = next((record.name for record in records if not record.sequence), None)
    if empty is not None:
        raise DataError("expected at least one symbol, got an empty prompt", record=empty)
    return records


def _continuations(
    net: HyenaGLT, prompts: list[Record], options: dict[str, Any], advance: Callable[[int], None]
) -> Iterator[Record]:
    """One record for each sequence; a prompt's draws depend on the seed and its place among the prompts."""
    from hyena_glt.sequences.records import Record

    count = options["num_return_sequences"]
    for place, prompt in enumerate(prompts):
        found = net.generate([prompt.sequence], return_scores=True, first_row=place * count, **options)
        for number, (sequence, scores) in enumerate(zip(found.sequences, found.scores, strict=True), start=1):
            name = prompt.name if count == 1 else f"{prompt.name}_{number}"
            kept = len(prompt.sequence) if options["include_prompt"] else 0
            about = f"prompt={kept} new={len(scores)} mean_logprob={float(scores.mean()):.4f}"
            yield Record(name, about, sequence, 0)
            advance(1)
