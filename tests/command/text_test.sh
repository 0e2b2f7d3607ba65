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

echo '{"index": 4, "input_context": "The code is 7391.", "input_query": "What is the code?", "outputs": ["7391"]}' >"$work/published.jsonl"
published=(--input "$work/published.jsonl" --max-new-tokens 4)
on 1 run --model "$chat" "${published[@]}" --output "$work/published.out"
check "the published tool's records stay as they are" [ "$(n_query "$work/published.out")" -eq "$(n_query "$work/plain.jsonl")" ]
on 1 run --model "$chat" "${published[@]}" --chat llama2 --output "$work/named.out"
check "where markup is asked for, too" [ "$(n_query "$work/named.out")" -eq "$(n_query "$work/glued.jsonl")" ]
exit $failed
