#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains small tokenizers of each supported kind and writes what the `tokenizers` and `sentencepiece`
libraries make of awkward strings.

usage: make_tokenizer_goldens.py PILOT_TOKENIZER_JSON OUTPUT_FOLDER
needs: pip install tokenizers sentencepiece
"""
import io
import json
import os
import random
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def corpus(rng):
    words = ("the of and magic number house wird für straße naïve café мир дом вода 世界 你好 数据 日本語 テスト 안녕 하세요 "
             "שלום مرحبا नमस्ते function return int while x y z alpha beta don't we've I'll 12 345 6789 !? ... -> == "
             "{ } ( ) ; 😀 👩‍👩‍👧 é ü ß").split()
    return [" ".join(rng.choice(words) for _ in range(40)) + "\n" for _ in range(400)]


def awkward(rng):
    fixed = ["", " ", "  ", "\n", "\r\n", "\t\t", "a", " a", "a ", "  a  b  ", "don't WE'VE I'LL 'S", "ſ's", "1234567890",
             "12 345 6,789.01", "x=1;\n\n  y = 2\n\t\treturn x+y\n", "<|begin|>", "<|end|> text <|end|>", "<s>", "</s> a", "<unk>",
             "▁", "a▁b", " ▁ ", "é", "e\u0301", "\u0041\u030a", "ﬁ", "①", "Å", "\u212b", "ｶﾞ", "가", "\u1100\u1161", "😀", "👩‍👩‍👧", "🇩🇪🇫🇷",
             "\u200d", "\ufeff", "\ufffd", "\ufffe", "\U0010ffff", "\x00", "\x01\x02", "\x7f", "\x85", "\u00a0", "\u2003x\u2003", "\u3000",
             "\u202eabc", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "ไทยไม่มีช่องว่าง", "日本語のテキスト", "한국어 텍스트", "Ελληνικά",
             "Здравствуй, мир!", "a" * 500, "ab" * 300, "é" * 200, "世" * 100, " " * 100, "\n" * 50, "!" * 77, "9" * 40, "x\n" * 30,
             "word " * 60, "a\u0300\u0301\u0302b", "Straße STRASSE", "ǅ", "İstanbul", "<0x0A>", "<0xZZ>", "a <|begin|><|end|> b",
             "<mask>  x", "foo<mask>bar", "  <mask>  ", "NEWTOKEN", "xNEWTOKENx NEWTOKEN.", "http://example.org/a?b=c&d=%20", "a,b;c:d",
             "“quotes” ‘single’ — dash…", "C++ #include <x>", "λx.x", "∀x∈ℝ: x²≥0", "½ ⅓ ²³", "①②③ ⅷ", "٠١٢٣", "१२३"]
    alphabets = ["abc ", "aä é", "0123 ,", " \n\t\r", "日本語 世", "мир ", "'sdtm ", "😀👩‍ ", "e\u0301\u0300 ", "<|begin|end> ", "▁ a",
                 "".join(chr(c) for c in range(0x20, 0x250)), "".join(chr(c) for c in range(0x370, 0x590)),
                 "".join(chr(c) for c in range(0x900, 0xa00)), "".join(chr(c) for c in range(0x2000, 0x2100)),
                 "".join(chr(c) for c in range(0xac00, 0xad00)), "".join(chr(c) for c in range(0x1f300, 0x1f680))]
    texts = list(fixed)
    while len(texts) < 560:
        alphabet = rng.choice(alphabets)
        texts.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 40))))
    return texts


def train(tokenizer, lines, byte_level, **options):
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    specials = [AddedToken("<unk>", special=True)] if not byte_level else []
    specials += [f"<0x{b:02X}>" for b in range(256)] if options.pop("bytes", False) else []
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=specials,
                                                             show_progress=False))
    return tokenizer


def add_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<|begin|>", special=True, normalized=False), AddedToken("<|end|>", special=True, normalized=False),
                                  AddedToken("<mask>", special=True, normalized=False, lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("NEWTOKEN", special=False, normalized=False, single_word=True)])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B:1", special_tokens=[("<|begin|>", begin)])
    return tokenizer


def byte_level(lines, pattern, nfc, ignore_merges):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        t.normalizer = normalizers.NFC()
    if pattern:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", invert=False),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    return add_tokens(train(t, lines, True))


def sentencepiece_style(lines, metaspace):
    # Trained with words cut at ▁, used as Llama 2 (whole text one word) or through Metaspace.
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if not metaspace else "first")
    train(t, lines, False, bytes=True)
    data = json.loads(t.to_str())
    data["added_tokens"] = [a for a in data["added_tokens"] if a["content"] == "<unk>"]
    strip = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    data["decoder"] = {"type": "Sequence", "decoders": strip}
    if not metaspace:
        data["pre_tokenizer"] = None
        data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    return add_tokens(Tokenizer.from_str(json.dumps(data)))


def write(folder, name, tokenizer, texts):
    os.makedirs(f"{folder}/{name}", exist_ok=True)
    data = json.loads(tokenizer.to_str())
    with open(f"{folder}/{name}/tokenizer.json", "w") as f:
        json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
    cases = []
    for text in texts:
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": plain, "parsed": None if parsed == plain else parsed,
                      "decoded": tokenizer.decode(plain, skip_special_tokens=True)})
    save_cases(f"{folder}/{name}/cases.json", f"tokenizers {tokenizers.__version__}", cases)


def save_cases(path, library, cases):
    with open(path, "w") as f:
        f.write(json.dumps({"library": library}) [:-1] + ',"cases":[\n')
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")


def main():
    pilot, folder = sys.argv[1:]
    rng = random.Random(7)
    lines = corpus(rng)
    texts = awkward(rng)
    write(folder, "llama3", byte_level(lines, LLAMA3, nfc=False, ignore_merges=True), texts)
    write(folder, "qwen2", byte_level(lines, QWEN2, nfc=True, ignore_merges=False), texts)
    write(folder, "gpt2", byte_level(lines, None, nfc=False, ignore_merges=False), texts)
    write(folder, "llama2", sentencepiece_style(lines, metaspace=False), texts)
    write(folder, "metaspace", sentencepiece_style(lines, metaspace=True), texts)

    tokenizer = Tokenizer.from_file(pilot)
    os.makedirs(f"{folder}/pilot", exist_ok=True)
    save_cases(f"{folder}/pilot/cases.json", f"tokenizers {tokenizers.__version__}",
               [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids, "parsed": None} for t in texts if "<|" not in t])

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(l.strip() for l in lines), model_writer=model, model_type="bpe",
                                             vocab_size=600, byte_fallback=True, character_coverage=0.99, normalization_rule_name="identity",
                                             remove_extra_whitespaces=False, add_dummy_prefix=True, minloglevel=2)
    os.makedirs(f"{folder}/sentencepiece", exist_ok=True)
    with open(f"{folder}/sentencepiece/tokenizer.model", "wb") as f:
        f.write(model.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    texts = [t for t in texts if "\x00" not in t]
    save_cases(f"{folder}/sentencepiece/cases.json", f"sentencepiece {sentencepiece.__version__}",
               [{"text": t, "ids": sp.encode(t), "parsed": None} for t in texts])


if __name__ == "__main__":
    main()
