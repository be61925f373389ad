"""A recipe and a corpus -> windows of both halves, the patcher fitted on what is learned, and its patches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyena_glt.errors import ConfigError
from hyena_glt.training.corpus import Corpus, Regions, split_corpus
from hyena_glt.training.patched_corpus import PatchedCorpus, StaticPatches
from hyena_glt.training.recipe import PatchingSection, Recipe
from hyena_glt.training.run_folder import RunFolder
from hyena_glt.training.windows import WindowTable, tile

if TYPE_CHECKING:
    from hyena_glt.patching import Patcher
    from hyena_glt.training.engine import Engine

FIT_PIECE = 1 << 20  # bases of the pieces that a patcher is fitted on, where it is not on all
NOT_SAVED = ("random", "track")  # modes whose boundaries cannot be had from letters, so not by a patcher of the net
MIX_CAP = 1024  # bases; in a repeat, a model that learns as it reads is never surprised

Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a run reads."""

    train: WindowTable
    held_out: WindowTable | None
    patcher: Patcher | None  # of the net that is saved; None: the net cuts, or boundaries are random or a track's
    patches: Any  # what a loader takes: PatchedCorpus, or None


def prepare_data(recipe: Recipe, corpus: Corpus, run: RunFolder, engine: Engine, note: Note) -> TrainingData:
    """Windows of both halves of a corpus, and their patches.

    Raises:
        DataError: Nothing to learn from.
        ConfigError: A patcher that does not fit, or a mean patch length that cannot be reached.
    """
    options = recipe.data
    learned, kept = split_corpus(
        corpus,
        held_out_contigs=options.held_out_contigs,
        held_out_share=options.held_out_share,
        block=options.block,
        gap=options.gap,
        seed=recipe.seed,
    )
    shape = options.window, options.stride, options.max_ambiguous_share
    train = WindowTable(learned, *shape)
    held_out = WindowTable(kept, options.window, None, options.max_ambiguous_share) if len(kept) else None
    if train.num_left_out:
        note(f"{train.num_left_out:,} training windows are left out: mostly ambiguity symbols, or too short")
    if held_out is None:
        note("nothing is held out (data.held_out_share, data.held_out_contigs), so nothing is evaluated")
    patcher = _saved_patcher(recipe, learned, run, engine)
    if not engine.is_main:
        engine.barrier()
    patches = make_patches(recipe, corpus, patcher, run.patches)
    if engine.is_main:
        engine.barrier()  # the others read what rank 0 has cut
    return TrainingData(train, held_out, None if recipe.patching.mode in NOT_SAVED else patcher, patches)


def make_patches(recipe: Recipe, corpus: Corpus, patcher: Patcher | None, cache: Path | None = None) -> Any:
    """What gives windows their patches: equal ones, those of a whole corpus (kept in `cache`), or None: the net cuts.

    Raises:
        ConfigError: Boundaries that depend on the future, where the net predicts from the past.
    """
    mode = recipe.patching.mode
    if mode == "byte":
        return StaticPatches(1)
    if mode == "static":
        return StaticPatches(recipe.patching.size)
    if patcher is None:
        return None
    if recipe.model.causal and mode != "random" and not patcher.is_causal:
        raise ConfigError(
            "patching.patcher: expected boundaries that the past decides with objective next_byte, got a patcher with "
            "is_causal False (top-k, a tokenizer's merges or the entropy model 'auto')"
        )
    both = recipe.data.reverse_complement
    patches = PatchedCorpus.from_patcher(corpus, patcher, reverse_complement=both, cache_folder=cache)
    return patches.shuffled(recipe.seed, corpus) if mode == "random" else patches


def make_patcher(options: PatchingSection, learned: Regions) -> Patcher | None:
    """The patcher that a recipe asks for, fitted on what is learned from and nothing else; None: the net cuts.

    Raises:
        ConfigError: A mean patch length that these sequences cannot give.
        ModelFileError: A given patcher that is damaged.
        DataError: A track that is missing or damaged.
    """
    from hyena_glt.entropies import MarkovEntropy, MixEntropy, TrackEntropy
    from hyena_glt.patching import Patcher, calibrate

    if options.mode == "learned":
        return None
    if options.mode == "byte":
        return Patcher(patching_mode="byte")
    if options.mode == "static":
        return Patcher(patching_mode="static", patch_size=options.size)
    alphabet = learned.corpus.alphabet.name
    if options.mode == "track":
        assert options.track is not None  # the recipe has seen to it
        return Patcher(
            patching_mode="track",
            entropy_model=TrackEntropy(options.track, alphabet=alphabet),
            threshold=options.threshold,
            min_patch_length=options.min_length,
            max_patch_length=options.max_length,
        )
    if options.patcher is not None:
        return Patcher.load(options.patcher)
    pieces = fit_pieces(learned, options.fit_bases)
    is_mix = options.mode == "mix"
    longest = MIX_CAP if is_mix and options.max_length is None else options.max_length
    return calibrate(
        pieces,
        entropy_model=MixEntropy(alphabet) if is_mix else MarkovEntropy.fit(pieces, alphabet=alphabet),
        target_mean_length=options.target_length,
        min_patch_length=options.min_length,
        max_patch_length=longest,
    ).build()


def fit_pieces(learned: Regions, most_bases: int) -> list[bytes]:
    """The regions, or where they are longer than `most_bases` evenly spaced pieces of them, without gaps of N.

    A gap counts as one patch length after another where all scores are equal: no threshold gives a mean length then.
    """
    learned = learned.without_gaps()
    spans = learned.spans
    if learned.num_bases > most_bases:
        every = tile(spans, FIT_PIECE, FIT_PIECE)
        count = max(1, round(len(every) * most_bases / learned.num_bases))
        spans = every[np.linspace(0, len(every) - 1, count).round().astype(np.int64)]
    return [learned.corpus.sequence(*place).tobytes() for place in spans.tolist()]


def evenly_spaced(table: WindowTable, most: int | None) -> WindowTable:
    """A table of at most so many of its windows, spread over all of them."""
    chosen = copy.copy(table)
    if most is not None and len(table) > most:
        chosen.windows = table.windows[np.linspace(0, len(table) - 1, most).round().astype(np.int64)]
    return chosen


def _saved_patcher(recipe: Recipe, learned: Regions, run: RunFolder, engine: Engine) -> Patcher | None:
    """The patcher of a run: made once, by rank 0, and read from its folder by every process ever after.

    A track stays where it is, and learned boundaries have no patcher.
    """
    from hyena_glt.patching import Patcher

    if recipe.patching.mode in ("learned", "track"):
        return make_patcher(recipe.patching, learned)
    if engine.is_main and not (run.patcher / "patcher.json").is_file():
        patcher = make_patcher(recipe.patching, learned)
        assert patcher is not None
        patcher.save(run.patcher)
    engine.barrier()
    return Patcher.load(run.patcher)
