# SPDX-License-Identifier: Apache-2.0
"""The demo model's tokenizer: byte-level BPE in Hugging Face's tokenizer.json."""
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BEGIN, END = "<|begin|>", "<|end|>"
# Qwen2's pattern: single digits, so that numbers are spelled.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(texts, n_tokens):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=n_tokens, min_frequency=20, special_tokens=[BEGIN, END],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))])
    return tokenizer


class WordCache:
    """The same token ids as the tokenizer's, ten times as fast on text of few different words."""

    ASCII_PATTERN = re.compile(PATTERN.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9")
                               .replace("]?A-Za-z+", "]?[A-Za-z]+").replace("|0-9|", "|[0-9]|"))

    def __init__(self, tokenizer):
        self.tokenizer, self.ids = tokenizer, {}

    def encode(self, text):
        """text is ASCII; no <|begin|> before it."""
        ids, found = self.ids, []
        for word in self.ASCII_PATTERN.findall(text):
            known = ids.get(word)
            if known is None:
                known = self.tokenizer.encode(word, add_special_tokens=False).ids
                if len(word) < 12:
                    ids[word] = known
            found += known
        return found
