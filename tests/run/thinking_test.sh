#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Reasoning models: the demo model behind a template that opens its thinking. What it thinks is nothing to
# speak of; where it ends, and what becomes of it, is the program's.
# usage: thinking_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

thinker=$work/thinker
mkdir "$thinker"
ln -s "$(realpath "$model")"/* "$thinker"
cat >"$thinker/chat_template.jinja" <<'JINJA'
{{ messages[0].content }}{% if not (enable_thinking is defined and enable_thinking is false) %}{{ ' <think>' }}{% endif %}
JINJA
head -n 2 "$source_dir/data/demo.jsonl" | sed -E 's/"max_new_tokens": [0-9]+/"meta": 0/g' >"$work/in.jsonl"
base=(--input "$work/in.jsonl" --block-size 512 --max-new-tokens 24)
ask() { # output, ranks, model, options...
  local output=$1 ranks=$2 folder=$3
  shift 3
  on "$ranks" run --model "$folder" "${base[@]}" --output "$work/$output" "$@"
}
holds() { # python expression over lists of answers by the names of their files
  python3 - "$work" "$1" <<'PYTHON'
import json, os, sys
work, expression = sys.argv[1:]
names = {}
for name in os.listdir(work):
    if name.endswith(".out"):
        names[name[:-4]] = [json.loads(line) for line in open(f"{work}/{name}")]
sys.exit(not eval(expression, names))
PYTHON
}

ask text.out 1 "$thinker"
check "the prompt opens the thinking" says "<think>"
ask keep.out 1 "$thinker" --thinking keep --stop e
check "thinking without an end is no answer" holds 'all(a["answer"] == "" for a in keep)'
check "it is kept apart" holds 'len(keep) == 6 and all(a["reasoning"] == b["answer"].strip() for a, b in zip(keep, text))'
check "no stop string ends it" holds 'all(a["tokens"] == b["tokens"] for a, b in zip(keep, text))'
ask budget.out 1 "$thinker" --thinking keep --thinking-tokens 4
n_end=$("$program" tokenize --model "$model" --text $'\n</think>\n\n' --counts 2>/dev/null | grep -o '^[0-9]*')
check "a budget ends it" holds "all(a['tokens'][:4] == b['tokens'][:4] and a['reasoning'] for a, b in zip(budget, text))"
check "with the tokens of its end" holds "len({tuple(a['tokens'][4:4 + $n_end]) for a in budget if len(a['tokens']) >= 4}) == 1"
check "and the answer follows" holds 'all(len(a["tokens"]) <= 24 for a in budget) and any(a["answer"] for a in budget)'
ask budget3.out 3 "$thinker" --thinking keep --thinking-tokens 4 --query-ranks all
check "on three ranks as on one" same "$work/budget.out" "$work/budget3.out"
ask drop.out 1 "$thinker" --thinking drop --thinking-tokens 4
check "drop leaves the reasoning out" holds 'all("reasoning" not in a and a["answer"] == b["answer"] for a, b in zip(drop, budget))'

ask off.out 1 "$thinker" --thinking off
ask plain.out 1 "$model" --query-prefix $'\n\n'
check "off is the template's own" holds 'len(off) == 6 and all(a["tokens"] == b["tokens"] for a, b in zip(off, plain))'
ask rounds.out 2 "$model" --query-prefix $'\n\n' --thinking keep --thinking-tokens 4
check "an answer without thinking is the same in two rounds" \
  holds 'all(a["tokens"] == b["tokens"] and a["answer"] == b["answer"] and "reasoning" not in a for a, b in zip(rounds, plain))'
ask none.out 1 "$model" --thinking off
check "off without a template is 2" [ $code -eq 2 ]
check "which says what to do" says "--thinking drop"
ask none.out 1 "$thinker" --thinking-tokens 4
check "a budget without keep or drop is 2" [ $code -eq 2 ]
ask text.out 1 "$thinker" --thinking keep
check "an output is not continued with another setting" [ $code -eq 2 ]
exit $failed
