"""The tokenizer that a GGUF file carries: byte-level BPE, rebuilt with the `tokenizers` package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bitwright.arch.errors import CheckpointError, suggest

if TYPE_CHECKING:
    import tokenizers

# How text is cut before the merges: single digits apart (SmolLM2), or GPT-2's pattern alone.
_DIGITS_APART = {"smollm": True, "gpt-2": False}
_CONTROL = 3  # token type of GGUF: never made from text by merging


def build(fields: Mapping[str, Any], path: Path) -> tokenizers.Tokenizer:
    """The tokenizer described by the `tokenizer.ggml.*` fields of the file at `path`.

    Raises CheckpointError for another kind than byte-level BPE, or for missing fields.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = fields.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind != "gpt2":
        raise CheckpointError(f"{path}: tokenizer.ggml.model = {kind!r}: bitwright reads byte-level BPE ('gpt2') only")
    cut = str(fields.get("tokenizer.ggml.pre"))
    if cut not in _DIGITS_APART:
        raise CheckpointError(
            f"{path}: tokenizer.ggml.pre = {cut!r}: unknown pre-tokenizer; {suggest(cut, _DIGITS_APART)}"
        )
    words, merges = fields.get("tokenizer.ggml.tokens"), fields.get("tokenizer.ggml.merges")
    if not isinstance(words, list) or not isinstance(merges, list):
        raise CheckpointError(f"{path}: tokenizer.ggml.tokens and tokenizer.ggml.merges must be lists of strings")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocabulary = {word: index for index, word in enumerate(words)}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # the package raises plain Exception for merges outside the vocabulary
        raise CheckpointError(f"{path}: tokenizer.ggml.merges: {error}") from None
    digits = [pre_tokenizers.Digits(individual_digits=True)] if _DIGITS_APART[cut] else []
    pattern = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pattern])
    tokenizer.decoder = decoders.ByteLevel()
    types = np.asarray(fields.get("tokenizer.ggml.token_type", []))
    control = [words[index] for index in np.flatnonzero(types == _CONTROL) if index < len(words)]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    return tokenizer
