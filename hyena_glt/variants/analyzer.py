"""Effects of variants on one sequence in memory, in the form that the Integration Guide publishes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hyena_glt.errors import ConfigError, DataError, RegionError, VariantFormatError
from hyena_glt.sequences.quoting import quoted
from hyena_glt.tokens.byte_tokenizer import OFFSET
from hyena_glt.variants.alleles import BASES, SequenceAllele, UnscoredReason, parse_allele
from hyena_glt.variants.edits import Edit, normalised
from hyena_glt.variants.readings import cosine_distance, log_likelihoods
from hyena_glt.variants.reference_check import bases_agree
from hyena_glt.variants.windows import AlleleWindows, allele_windows, check_window, scored_places

KEPT_OUTPUTS = 64  # of reference windows
KEYS = ("position", "ref_allele", "alt_allele")
NUMBERS = ("effect_score", "ref_compression", "alt_compression", "patch_changes", "log_likelihood_difference")


class GenomicVariantAnalyzer:
    """Compares what a net makes of a sequence with and without each variant.

    Args:
        model: A `HyenaGLT` in evaluation mode. A causal one gives log-likelihoods too.
        patcher: Cuts the contexts; None: the model's own.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> model = HyenaGLT(HyenaGLTConfig.preset("tiny")).eval()
        >>> analyzer = GenomicVariantAnalyzer(model, Patcher(patching_mode="static", patch_size=4))
        >>> variants = [{"position": 9, "ref_allele": "A", "alt_allele": "T"}]
        >>> effect = analyzer.analyze_variant_effects("ATGGCGTTAGCCAAAGGTCCA" * 20, variants)
        Traceback (most recent call last):
        ...
        hyena_glt.errors.DataError: variant 0: REF is 'A' but the sequence has 'G' at 9 (0-based)
        >>> variants[0]["ref_allele"] = "G"
        >>> analyzer.analyze_variant_effects("ATGGCGTTAGCCAAAGGTCCA" * 20, variants)[0]["effect_score"] >= 0
        True
    """

    def __init__(self, model: Any, patcher: Any | None = None) -> None:
        self.model = model
        self.patcher = patcher
        self.reference_cache: OrderedDict[str, Any] = OrderedDict()  # hash of a context -> its output; the last 64

    def analyze_variant_effects(
        self,
        reference_sequence: str | bytes,
        variants: Sequence[Mapping[str, Any]],
        context_window: int = 512,
    ) -> list[dict[str, Any]]:
        """Effects of variants, each on its own.

        A variant is normalised first, so equivalent spellings give equal results. Its context has `context_window`
        bases, with REF as with ALT, fewer only where the sequence is shorter; `windows.allele_windows` says which.

        Args:
            reference_sequence: Nucleotides, either case.
            variants: `position` (0-based), `ref_allele` and `alt_allele` (A, C, G, T, N; one of them may be empty;
                ALT may also be what VCF writes for no sequence: `*`, `.`, `<DEL>`, a breakend).
            context_window: Bases of each context.

        Returns:
            Per variant: `variant` (as given), `effect_score` (cosine distance >= 0 of the mean patch states),
            `ref_compression` and `alt_compression` (bases per patch), `patch_changes` (see
            `analyze_patch_changes`), `log_likelihood_difference` (nats, ALT minus REF, summed over equally many
            bases from the variant on; None where the model is not causal or no such base is there), and `reason`: None,
            or why an ALT that is no sequence has None for all of these (an `UnscoredReason`).

        Raises:
            ConfigError: A key is missing, or a context that is too short.
            DataError: REF is not what the sequence has there, or an allele is no sequence.
            RegionError: REF is not on the sequence.
            AlphabetError: The sequence holds something that is no nucleotide code.
        """
        check_window(context_window)
        sequence = reference_sequence.encode() if isinstance(reference_sequence, str) else bytes(reference_sequence)
        edits = [_checked_edit(variant, index, sequence) for index, variant in enumerate(variants)]
        return [
            self._analyze(dict(variant), edit, sequence, context_window)
            if isinstance(edit, Edit)
            else {"variant": dict(variant), **dict.fromkeys(NUMBERS), "reason": edit}
            for variant, edit in zip(variants, edits, strict=True)
        ]

    def compute_variant_effect(self, ref_output: Any, alt_output: Any, variant: Mapping[str, Any]) -> float:
        """Cosine distance of the mean patch states, in [0, 2]; 0 for no effect.

        Args:
            ref_output: Of the reference context, `(1, ...)`.
            alt_output: Of the same context with the variant.
            variant: Not read; part of the published call.
        """
        one, other = (
            out.last_hidden_state[0].detach().double().mean(dim=0).cpu().numpy() for out in (ref_output, alt_output)
        )
        return cosine_distance(one, other)

    def analyze_patch_changes(self, ref_output: Any, alt_output: Any) -> dict[str, float]:
        """What becomes of the patches.

        Returns:
            `boundary_changes` (difference of the number of patches, >= 0), `length_variance_change` and
            `compression_change` (ALT minus REF).
        """
        counts = [len(output.patch_info["boundaries"]) for output in (ref_output, alt_output)]
        variances = [_length_variance(output.patch_lengths) for output in (ref_output, alt_output)]
        return {
            "boundary_changes": abs(counts[1] - counts[0]),
            "length_variance_change": variances[1] - variances[0],
            "compression_change": alt_output.compression_ratio - ref_output.compression_ratio,
        }

    def _analyze(self, variant: dict[str, Any], edit: Edit, sequence: bytes, window: int) -> dict[str, Any]:
        def fetch(start: int, end: int) -> bytes:
            return sequence[start:end]

        windows = allele_windows(normalised(edit, fetch), fetch, len(sequence), window)
        if not windows.ref:
            raise DataError("nothing is left of the sequence to be compared", record=_name(variant))
        reference, alternative = self._reference_output(windows.ref), self._output(windows.alt)
        return {
            "variant": variant,
            "effect_score": self.compute_variant_effect(reference, alternative, variant),
            "ref_compression": reference.compression_ratio,
            "alt_compression": alternative.compression_ratio,
            "patch_changes": self.analyze_patch_changes(reference, alternative),
            "log_likelihood_difference": self._difference(windows, reference, alternative),
            "reason": None,
        }

    def _reference_output(self, context: bytes) -> Any:
        key = hashlib.sha256(context).hexdigest()
        if key not in self.reference_cache:
            self.reference_cache[key] = self._output(context)
            while len(self.reference_cache) > KEPT_OUTPUTS:
                self.reference_cache.popitem(last=False)
        return self.reference_cache[key]

    @torch.no_grad()
    def _output(self, context: bytes) -> Any:
        if self.patcher is None:
            return self.model.forward_with_patching(context)
        tokens = _tokens(context)
        if not hasattr(self.patcher, "patch_with_starts"):
            return self.model(tokens, self.patcher.patch(tokens)[0])
        patched = self.patcher.patch_with_starts(tokens)
        return self.model(tokens, patched.patch_lengths, patched.known_starts)

    def _difference(self, windows: AlleleWindows, reference: Any, alternative: Any) -> float | None:
        count = windows.num_scored
        if not self.model.config.causal or not count:
            return None
        alt = self._log_likelihood(windows.alt, scored_places(windows.alt, windows.first, count), alternative)
        return alt - self._log_likelihood(windows.ref, scored_places(windows.ref, windows.first, count), reference)

    def _log_likelihood(self, window: bytes, places: Any, output: Any) -> float:
        targets = self.model.vocabulary_ids(_tokens(window).to(output.logits.device))[:, 1:]
        likelihoods = log_likelihoods(output.logits[:, :-1], targets)[0].detach().double().cpu()
        return float(likelihoods[torch.from_numpy(places) - 1].sum())


def _checked_edit(variant: Mapping[str, Any], index: int, sequence: bytes) -> Edit | UnscoredReason:
    """What the variant changes, or why its ALT cannot be scored; REF is checked in any case."""
    if missing := [key for key in KEYS if key not in variant]:
        raise ConfigError(f"variant {index}: expected the keys {', '.join(KEYS)}; {missing[0]} is missing")
    position, ref, alt = (variant[key] for key in KEYS)
    if not isinstance(position, int | np.integer) or isinstance(position, bool):
        raise ConfigError(f"variant {index}: position: expected a whole number (0-based), got {position!r}")
    reason = _reason_of(alt)
    ref, alt = _allele(ref, "ref_allele", index), b"" if reason else _allele(alt, "alt_allele", index)
    if not 0 <= position <= len(sequence) - len(ref):
        raise RegionError(
            f"variant {index}: expected REF within the {len(sequence):,} bases, got {len(ref)} from {position:,} on"
        )
    found = sequence[position : position + len(ref)]
    if not bases_agree(ref, found):
        raise DataError(
            f"variant {index}: REF is {quoted(ref)} but the sequence has {quoted(found)} at {position} (0-based)"
        )
    return reason or Edit(int(position), ref, alt)


def _reason_of(alt: Any) -> UnscoredReason | None:
    """Of an ALT that VCF writes for no sequence; None for bases and for what is no allele at all."""
    try:
        allele = parse_allele(alt.encode() if isinstance(alt, str) else bytes(alt))
    except (TypeError, ValueError, VariantFormatError):
        return None
    return None if isinstance(allele, SequenceAllele) else allele.reason


def _allele(text: Any, key: str, index: int) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    if not isinstance(raw, bytes) or (raw and not BASES.fullmatch(raw)):
        raise DataError(f"variant {index}: {key}: expected the bases A, C, G, T, N, got {quoted(str(text))}")
    return raw


def _length_variance(lengths: torch.Tensor) -> float:
    """`torch.var` of the patch lengths; 0.0 for one patch."""
    real = lengths[lengths > 0].double()
    return float(real.var()) if real.numel() > 1 else 0.0


def _name(variant: Mapping[str, Any]) -> str:
    return f"position {variant['position']}"


def _tokens(window: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(window, np.uint8).astype(np.int64) + OFFSET).unsqueeze(0)
