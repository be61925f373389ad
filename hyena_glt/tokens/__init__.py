"""bytes -> token ids: lossless byte tokens, and the small vocabularies that fold them."""

from __future__ import annotations

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "BOE_ID": ".byte_tokenizer",
    "BOS_ID": ".byte_tokenizer",
    "BPE_ID": ".byte_tokenizer",
    "EOS_ID": ".byte_tokenizer",
    "OFFSET": ".byte_tokenizer",
    "PAD_ID": ".byte_tokenizer",
    "VOCAB_SIZE": ".byte_tokenizer",
    "ByteTokenizer": ".byte_tokenizer",
    "SmallVocabulary": ".small_vocab",
    "train_bpe": ".bpe_training",
}

__all__ = [
    "BOE_ID",
    "BOS_ID",
    "BPE_ID",
    "EOS_ID",
    "OFFSET",
    "PAD_ID",
    "VOCAB_SIZE",
    "ByteTokenizer",
    "SmallVocabulary",
    "train_bpe",
]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
