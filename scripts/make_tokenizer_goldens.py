#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small tokenizer of each supported kind and writes what the `tokenizers` and `sentencepiece`
libraries make of awkward texts. The same versions of the libraries write the same files.

usage: make_tokenizer_goldens.py [tests/golden/tokenizer [data/demo-model/tokenizer.json]]
needs: pip install tokenizers sentencepiece

texts.json            the texts
<kind>/tokenizer.*    the tokenizer
<kind>/expected.json  library: its version
                      ids: of each text, special tokens left as text (sentencepiece knows no other way)
                      decoded: {text's index: ids decoded} where that is not the text itself
                      parsed: {text's index: [ids, decoded, decoded without special tokens]}
                              where special tokens in the text make a difference
"""
import io
import json
import os
import random
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# Cased words and their marks apart, as later patterns have it.
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
WORDS = ("the of and magic number house wird für straße naïve café мир дом вода 世界 你好 数据 日本語 テスト 안녕 하세요 "
         "שלום مرحبا नमस्ते function return int while x y z alpha beta don't we've I'll 12 345 6789 !? ... -> == "
         "{ } ( ) ; 😀 👩‍👩‍👧 é ü ß").split()


def training_lines(rng):
    return [" ".join(rng.choice(WORDS) for _ in range(40)) + "\n" for _ in range(400)]


FIXED = [
    "", " ", "  ", "   ", "\n", "\r\n", "\r", "\n\n\n", "\t\t", " \n", "\n ", "  \n  a", "a", " a", "a ", "  a  b  ",
    # contractions, in both cases and with the long s
    "don't WE'VE I'LL 'S 'd'", "ſ's 'ſ", "it's'nt'reve",
    # digits of many kinds
    "1234567890", "12 345 6,789.01", "½ ⅓ ²³", "①②③ ⅷ Ⅻ", "٠١٢٣ ४५६ １２３", "3.14e-10", "v2.0.1",
    # code and addresses
    "x=1;\n\n  y = 2\n\t\treturn x+y\n", "for (int i = 0; i < n; ++i) {\r\n\tsum += a[i];\r\n}\r\n", "C++ #include <x>", "λx.x",
    "http://example.org/a?b=c&d=%20", "C:\\temp\\new", "{\"key\": [1, null]}", "a/*b*/c//d", "/path//to/", "!!!\n\n???\r\n",
    # special tokens and what looks like them
    "<|begin|>", "<|end|> text <|end|>", "a <|begin|><|end|> b", "<|begin|", "<|begin|>>", "<<|end|>", "<s>", "</s> a", "<unk>",
    "<mask>  x", "foo<mask>bar", "  <mask>  ", "\u00a0<mask>\u3000\n", "<mask><mask>", "<mask> <mask>", "NEWTOKEN", "xNEWTOKENx NEWTOKEN.",
    "NEWTOKENNEWTOKEN", "éNEWTOKEN", "NEWTOKEN_", "(NEWTOKEN)", "new\u1e0d word", "a newd\u0323 word", "<|tool|>", "<|tool|>call", "<|to",
    "<0x0A>", "<0xZZ>", "<0x41><0xE9>",
    # the SentencePiece mark itself
    "▁", "a▁b", " ▁ ", "▁▁a", "a ▁", "▁a b",
    # composed and decomposed
    "é", "e\u0301", "\u0041\u030a", "ﬁ ﬀ", "Å", "\u212b", "ｶﾞ", "가", "\u1100\u1161", "\u1100\u1161\u11a8", "a\u0300\u0301\u0302b",
    "a\u0315\u0316\u0300", "\u0344", "\u0958", "\u2126", "q\u0307\u0323", "\u0301", " \u0301", "o\u0302\u0301\u0323",
    # emoji, flags, joiners, direction marks
    "😀", "👩‍👩‍👧", "👍🏽", "🇩🇪🇫🇷", "1️⃣", "\u200d", "a\u200bb", "\u202eabc\u202c", "\u2066x\u2069", "☺\ufe0f",
    # control characters, non-characters, the ends of planes
    "\x00", "a\x00b", "\x01\x02\x1b[0m", "\x7f", "\x85", "a\x85b", "\x1c\x1d", "\ufeff", "\ufeffa", "\ufffd", "a\ufffd\ufffdb", "\ufffe", "\uffff",
    "\ufdd0", "\U0001fffe", "\U0010ffff", "\U000f0000", "\ue000", "\u0378",
    # white space of every kind
    "\u00a0", "\u2003x\u2003", "\u3000", "\u180e", "a\u180e b", "\u2028\u2029", "\u1680a", "\u202f5\u205f", "\v\f", "a \u00a0 b", "x \t y",
    # scripts
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "ไทยไม่มีช่องว่าง", "日本語のテキスト", "한국어 텍스트", "Ελληνικά", "Здравствуй, мир!", "Straße STRASSE",
    "ǅ ǆ", "İstanbul ıI", "ᏣᎳᎩ", "ⰀⰁ", "𝔘𝔫𝔦 𝒳", "ᚠᚢᚦ", "ⲁⲃ", "தமிழ்", "ລາວ", "አማርኛ", "𐍈𐌰", "中文，没有空格。", "“quotes” ‘single’ — dash…",
    "∀x∈ℝ: x²≥0", "a,b;c:d", "_under_score_ CamelCase HTTPServer iPhone's ABC'S", "ÀÉÎ àéî ÀéÎ", "Ⓐⓑ", "a_b‿c",
    # very long
    "a" * 300, "ab" * 150, "é" * 90, "世" * 60, " " * 90, "\n" * 40, "\r\n" * 20, "!" * 60, "9" * 40, "x\n" * 20, "word " * 30, "the" * 40,
    "👩‍" * 20, "a" + "\u0301" * 40, "▁" * 20, "<" * 30, "the of and magic number house wird für straße naïve café мир " * 2,
]
ALPHABETS = [
    "abc ", "aä é", "0123 ,", " \n\t\r", "日本語 世界", "мир дом ", "'sdtmSDTM ", "😀👩‍ ", "e\u0301\u0300 \u0323", "<|begin|end> ", "▁ a", "aA éÉ'", "/\n!? ",
    "<mask> x", "NEWTOKEN _", [chr(c) for c in range(0x20, 0x250)], [chr(c) for c in range(0x370, 0x590)], [chr(c) for c in range(0x900, 0x980)],
    [chr(c) for c in range(0x2000, 0x2100)], [chr(c) for c in range(0xac00, 0xad00)], [chr(c) for c in range(0x1f300, 0x1f650)],
    [chr(c) for c in range(0x00, 0x21)], [chr(c) for c in range(0x300, 0x350)] + ["a", "o"], WORDS,
    [chr(c) for c in list(range(0x80, 0x110)) + [0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10fffd]],
]


def awkward_texts(rng):
    texts = list(dict.fromkeys(FIXED))
    while len(texts) < 560:
        alphabet = rng.choice(ALPHABETS)
        texts.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 16))))
    return texts


def train(tokenizer, lines, byte_level, vocab_size, special_tokens):
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=special_tokens, show_progress=False))
    return tokenizer


def add_tokens(tokenizer, first="<|begin|>"):
    tokenizer.add_special_tokens([
        AddedToken("<|begin|>", special=True, normalized=False), AddedToken("<|end|>", special=True, normalized=False),
        AddedToken("<mask>", special=True, normalized=False, lstrip=True, rstrip=True)])
    # ("new\u00e9" instead of "new\u1e0d" the library would decode as if it were in the byte alphabet; we do not.)
    tokenizer.add_tokens([
        AddedToken("NEWTOKEN", special=False, normalized=False, single_word=True),
        AddedToken("<|tool|>", special=False, normalized=False),
        AddedToken("new\u1e0d", special=False, normalized=True, rstrip=True)])
    begin = tokenizer.token_to_id(first)
    template = processors.TemplateProcessing(single=f"{first} $A", pair=f"{first} $A $B:1", special_tokens=[(first, begin)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def without(tokenizer, letters):
    """Without the tokens that hold one of these letters: such bytes are dropped."""
    if not letters:
        return tokenizer
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [t for t in sorted(model["vocab"], key=model["vocab"].get) if not set(letters) & set(t)]
    merges = [m for m in model["merges"] if m[0] + m[1] in tokens]
    return with_model_options(tokenizer, vocab={t: i for i, t in enumerate(tokens)}, merges=merges)


def byte_level(lines, steps, normalizer=None, ignore_merges=False, vocab_size=500, gaps=""):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    t.decoder = decoders.ByteLevel()
    return add_tokens(without(train(t, lines, True, vocab_size, []), gaps))


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def with_model_options(tokenizer, **options):
    data = json.loads(tokenizer.to_str())
    for key, value in options.items():
        (data["model"] if key in data["model"] else data)[key] = value
    return Tokenizer.from_str(json.dumps(data))


def sentencepiece_style(lines, **options):
    """Trained with words cut at ▁; `options` replace parts of the tokenizer afterwards."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = [AddedToken("<unk>", special=True, normalized=False), AddedToken("<s>", special=True, normalized=False)]
    train(t, lines, False, 560, special + [f"<0x{b:02X}>" for b in range(256)])
    t = with_model_options(t, added_tokens=[a for a in json.loads(t.to_str())["added_tokens"] if not a["content"].startswith("<0x")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return add_tokens(with_model_options(t, **options), "<s>")


LLAMA2 = {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}}
# Steps behind ByteLevel see its letters: ² is byte 0xB2 there, and a digit.
FALCON3 = [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
           pre_tokenizers.Digits(individual_digits=False), split(Regex("[0-9][0-9][0-9]"))]


METASPACE_FIRST = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}}
METASPACE_OLD = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
                 "decoder": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
                 "byte_fallback": False, "fuse_unk": False}


def save(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def save_expected(path, tokenizer, texts):
    expected = {"library": f"tokenizers {tokenizers.__version__}", "ids": [], "decoded": {}, "parsed": {}}
    for i, text in enumerate(texts):
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        expected["ids"].append(plain)
        decoded = tokenizer.decode(plain, skip_special_tokens=True)
        if decoded != text:
            expected["decoded"][i] = decoded
        if parsed != plain:
            expected["parsed"][i] = [parsed, tokenizer.decode(parsed, skip_special_tokens=False),
                                     tokenizer.decode(parsed, skip_special_tokens=True)]
    save(path, expected)


def save_sentencepiece(folder, lines, texts):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.strip() for line in lines), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/tokenizer.model", "wb") as f:
        f.write(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    expected = {"library": f"sentencepiece {sentencepiece.__version__}", "ids": [], "decoded": {}, "parsed": {}}
    for i, text in enumerate(texts):
        expected["ids"].append(processor.encode(text))
        decoded = processor.decode(expected["ids"][-1])
        if decoded != text:
            expected["decoded"][i] = decoded
    save(f"{folder}/expected.json", expected)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else f"{root}/tests/golden/tokenizer"
    demo = sys.argv[2] if len(sys.argv) > 2 else f"{root}/data/demo-model/tokenizer.json"
    rng = random.Random(7)
    lines = training_lines(rng)
    texts = awkward_texts(rng)
    save(f"{folder}/texts.json", texts)
    kinds = {
        "llama3": byte_level(lines, [split(Regex(LLAMA3)), BYTES], ignore_merges=True),
        "qwen2": byte_level(lines, [split(Regex(QWEN2)), BYTES], normalizer=normalizers.NFC()),
        "gpt2": byte_level(lines, [pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        "cased": byte_level(lines, [split(Regex(CASED), "removed", True), BYTES], normalizer=normalizers.NFKC()),
        "steps": byte_level(lines, [split(" ", "merged_with_next"), split(Regex(r"[\n!]"), "merged_with_previous"), split(Regex(r"\w+\b"), "contiguous"),
                                    pre_tokenizers.Digits(individual_digits=True), split("\t", "removed"), BYTES],
                            normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.Replace("~", "\n"), normalizers.Replace(Regex("a+b"), "AB")])),
        "falcon3": byte_level(lines, FALCON3),
        # 0x1d, 0xf0 (in front of all of plane 1), 0xc2 and 0xbd have no token.
        "gaps": byte_level(lines, [split(Regex(LLAMA3)), BYTES], gaps="ĝðÂ½"),
        "llama2": sentencepiece_style(lines, **LLAMA2),
        "metaspace": sentencepiece_style(lines, **METASPACE_FIRST),
        "metaspace_old": sentencepiece_style(lines, **METASPACE_OLD),
    }
    for name, tokenizer in kinds.items():
        save(f"{folder}/{name}/tokenizer.json", json.loads(tokenizer.to_str()))
        save_expected(f"{folder}/{name}/expected.json", tokenizer, texts)
    save_expected(f"{folder}/demo/expected.json", Tokenizer.from_file(demo), texts)
    save_sentencepiece(f"{folder}/sentencepiece", lines, texts)


if __name__ == "__main__":
    main()
