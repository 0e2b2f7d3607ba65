#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a text to what the model reads: chat markup, what stands before a question, special tokens.
# usage: text_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

# A model whose chat template writes [INST] and [/INST], which need no tokens of their own.
chat=$work/chat
mkdir "$chat"
ln -s "$model"/* "$chat"
echo "{\"chat_template\": \"{{ '[INST] ' + m.content + ' [/INST]' }}\"}" >"$chat/tokenizer_config.json"
echo '{"id": "a", "context": "The code is 7391.", "queries": ["What is the code?"]}' >"$work/in.jsonl"
base=(--input "$work/in.jsonl" --max-new-tokens 4)
n_query() { grep -o '"n_query":[0-9]*' "$1" | cut -d: -f2; }

on 1 run --model "$model" "${base[@]}" --output "$work/plain.jsonl"
check "without markup nothing stands before a question" says 'chat markup none: context and query as they are'
on 1 run --model "$chat" "${base[@]}" --output "$work/chat.jsonl"
check "with it, a blank line does" says 'context, "\\n\\n" query " \[/INST\]"'
on 1 run --model "$chat" "${base[@]}" --query-prefix '' --output "$work/glued.jsonl"
check "--query-prefix '' takes it away" [ "$(n_query "$work/glued.jsonl")" -lt "$(n_query "$work/chat.jsonl")" ]
on 1 run --model "$model" "${base[@]}" --query-prefix $'\n\nQuestion: ' --output "$work/prefixed.jsonl"
check "and a text of one's own is written without markup, too" [ "$(n_query "$work/prefixed.jsonl")" -gt "$(n_query "$work/plain.jsonl")" ]
check "and shown" says 'chat markup none: context, "\\n\\nQuestion: " query'

# Outputs from before the option existed: their settings do not name it.
for name in plain glued; do sed -i '/"query_prefix"/d' "$work/$name.jsonl.settings.json"; done
on 1 run --model "$model" "${base[@]}" --output "$work/plain.jsonl"
check "an older output without markup is continued" says "0 new answer(s), 1 already there"
on 1 run --model "$chat" "${base[@]}" --output "$work/glued.jsonl"
check "one with markup is refused" [ $code -eq 2 ]
check "by naming the option that continues it" says "Pass --query-prefix '' to continue it"
on 1 run --model "$chat" "${base[@]}" --query-prefix '' --output "$work/glued.jsonl"
check "which does" says "0 new answer(s), 1 already there"

# Version 0.1.0 took markup from a template's texts and did not run it: where that is not the same, its
# outputs are not continued.
run_too=$work/run_too
mkdir "$run_too"
ln -s "$model"/* "$run_too"
echo "{\"chat_template\": \"{% for m in messages %}{{ '[INST]' }}{{ ' Say: ' + m.content }}{{ ' [/INST]' }}{% endfor %}\"}" >"$run_too/tokenizer_config.json"
on 1 run --model "$run_too" "${base[@]}" --output "$work/run_too.jsonl"
check "a template that runs is written as it says" says 'context, .* query " \[/INST\]"' && says ' Say: '
check "and recorded" grep -q '"chat_markup": "llama2: .*Say: ' "$work/run_too.jsonl.settings.json"
on 1 run --model "$run_too" "${base[@]}" --output "$work/run_too.jsonl"
check "its output is continued" says "0 new answer(s), 1 already there"
sed -i '/"chat_markup"/d' "$work/run_too.jsonl.settings.json"
on 1 run --model "$run_too" "${base[@]}" --output "$work/run_too.jsonl"
check "one that 0.1.0 began is refused" [ $code -eq 2 ]
check "by name" says "chat_markup = unset, now it is .* Use version 0.1.0"
on 1 run --model "$model" "${base[@]}" --block-size 512 --recall b/2 --output "$work/recall.jsonl"
on 1 run --model "$model" "${base[@]}" --block-size 512 --output "$work/recall.jsonl"
check "nor is one with recall continued without" [ $code -eq 2 ]
check "and that is named" says 'recall = "b/2", now it is unset'

echo '{"index": 4, "input_context": "The code is 7391.", "input_query": "What is the code?", "outputs": ["7391"]}' >"$work/published.jsonl"
published=(--input "$work/published.jsonl" --max-new-tokens 4)
on 1 run --model "$chat" "${published[@]}" --output "$work/published.out"
check "the published tool's records stay as they are" [ "$(n_query "$work/published.out")" -eq "$(n_query "$work/plain.jsonl")" ]
on 1 run --model "$chat" "${published[@]}" --chat llama2 --output "$work/named.out"
check "where markup is asked for, too" [ "$(n_query "$work/named.out")" -eq "$(n_query "$work/glued.jsonl")" ]

# The tokens of a text, a file, an input's documents, without a launcher.
tokenize() { # arguments... ; leaves code, $work/out and $work/log
  "$program" tokenize --model "$model" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
tokenize --text 'The code is 7391.'
check "tokenize shows ids and pieces" shows '^ *[0-9]+  "The"$'
check "and how many there are" shows '^[0-9]+ token\(s\) of 17 byte\(s\)$'
printf 'The code is 7391.' >"$work/code.txt"
tokenize --text 'The code is 7391.' --json
cp "$work/out" "$work/of_text"
tokenize --file "$work/code.txt" --json
check "a file has the same tokens" cmp -s "$work/out" "$work/of_text"
ids=$(grep -o '"ids":\[[0-9,]*\]' "$work/of_text")
tokenize --input "$work/in.jsonl" --json
check "and a document the same behind its BOS" grep -q "$(echo "$ids" | sed 's/.*\[//; s/\]//')" "$work/out"
n=$(grep -o '"n_context":[0-9]*' "$work/plain.jsonl" | cut -d: -f2)
tokenize --input "$work/in.jsonl" --counts
check "as many as run has" shows "^a: context $n token"
check "and in its query" shows "^a: query 0 $(n_query "$work/plain.jsonl") token"
tokenize --input "$work/in.jsonl" --text a
check "one text at a time" [ $code -eq 2 ]
tokenize
check "and one there must be" [ $code -eq 2 ]
tokenize --text 'é' --json
check "parts of a character are shown as bytes" shows '"pieces":\["(é|<0xC3>","<0xA9>)"\]'
echo '{"id": "torn"' >>"$work/in.jsonl"
tokenize --input "$work/in.jsonl"
check "a bad line is 65" [ $code -eq 65 ]

# A vocabulary without some bytes: they are dropped, as the tokenizers library drops them.
gaps=$work/gaps
mkdir "$gaps"
ln -s "$model"/* "$gaps"
rm "$gaps/tokenizer.json"
cp "$source_dir/tests/golden/tokenizer/gaps/tokenizer.json" "$gaps"
printf '{"id": "a", "context": "One.\\u001dTwo.\\u001d", "queries": ["What?"]}\n{"id": "b", "context": "One. Two.", "queries": ["Wh\\u001dat?"]}\n' >"$work/gaps.jsonl"
on 2 run --model "$gaps" --input "$work/gaps.jsonl" --max-new-tokens 2 --output "$work/gaps.out"
check "bytes without a token do not fail a document" [ $code -eq 0 -a "$(wc -l <"$work/gaps.out")" -eq 2 ]
check "they are counted in one warning" [ "$(grep -c '3 byte(s) of the input have no token' "$work/log")" -eq 1 ]

# A text far beyond the positions is refused by its beginning, not after it has been tokenized.
yes 'A sentence that comes again and again.' | head -c 300000000 >"$work/endless.txt"
printf '{"id": "endless", "context_file": "endless.txt", "queries": ["What?"]}\n{"id": "a", "context": "One.", "queries": ["What?"]}\n' >"$work/endless.jsonl"
{ printf '{"id": "asked", "context": "One.", "queries": ["'; yes 'word and more' | head -c 30000000 | tr '\n' ' '; printf '"]}\n'; } >>"$work/endless.jsonl"
on 1 run --model "$model" --input "$work/endless.jsonl" --max-new-tokens 2 --output "$work/endless.out"
check "a text that is far too long is an error line" [ $code -eq 65 ]
check "so is a question" grep -q "query '0' of 30,000,000 bytes: the first 1,048,576 have" "$work/endless.out"
check "found by its first bytes" grep -q 'context of 300,000,000 bytes: the first 1,048,576 have' "$work/endless.out"
check "and the batch goes on" grep -q '"answer"' "$work/endless.out"

# Added tokens that the model has no embedding for.
beyond=$work/beyond
mkdir "$beyond"
ln -s "$model"/* "$beyond"
rm "$beyond/tokenizer.json"
sed '0,/"added_tokens": \[/s//"added_tokens": [{"id": 9999, "content": "<pad>", "special": false, "normalized": false},/' \
  "$model/tokenizer.json" >"$beyond/tokenizer.json"
echo '{"id": "a", "context": "The text says <pad> here.", "queries": ["What?"]}' >"$work/pad.jsonl"
for special in text parse; do
  on 1 run --model "$beyond" --input "$work/pad.jsonl" --special-tokens $special --max-new-tokens 2 --output "$work/pad.$special"
  check "a document may mention a token beyond the model ($special)" [ $code -eq 0 -a "$(wc -l <"$work/pad.$special")" -eq 1 ]
done
exit $failed
