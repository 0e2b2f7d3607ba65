#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An OpenAI batch file as its users bring it: contexts that come again, requests that cannot be answered, a
# run that is killed, one that answers from checkpoints.
# usage: requests_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

python3 - "$source_dir/data/demo.jsonl" "$work" <<'PYTHON' || exit 1
import json, sys
documents = [json.loads(line) for line in open(sys.argv[1])][:3]
work = sys.argv[2]
def request(name, body, url="/v1/chat/completions"):
    return {"custom_id": name, "method": "POST", "url": url, "body": {"model": "demo", **body}}
def ask(context, question, **more):
    return {"messages": [{"role": "user", "content": context + "\n\n" + question}], "max_tokens": 8, **more}
good, bad = [], []
for k in range(3):
    for document in documents:
        if k < len(document["queries"]):
            question = document["queries"][k]["text"].strip()
            good.append(request(f"{document['id']}/{k}", ask(document["context"], question, stop=["\n"])))
context = documents[0]["context"]
question = documents[0]["queries"][0]["text"]
good.append(request("drawn", ask(context, question, temperature=0.7, seed=5)))
good.append(request("drawn again", ask(context, question, temperature=0.7, seed=5)))
good.append(request("likely", ask(context, question, logprobs=True, top_logprobs=2)))
good.append(request("plain", {"prompt": context + "\n\n" + question, "max_tokens": 8}, "/v1/completions"))
good.append(request("turns", {"max_tokens": 8, "messages": [{"role": "system", "content": context},
                                                            {"role": "user", "content": question}]}))
good.append(request("file", {"max_tokens": 8, "context_file": "context.txt",
                             "messages": [{"role": "user", "content": question}]}))
open(work + "/context.txt", "w").write(context)
bad.append(request("embedding", {"input": "x"}, "/v1/embeddings"))
bad.append(request("long", ask(context, "word " * 100000)))
bad.append(request("plain", ask(context, question)))
write = lambda name, lines: open(f"{work}/{name}", "w").writelines(json.dumps(line) + "\n" for line in lines)
write("in.jsonl", good)
write("mixed.jsonl", good[:2] + bad[:1] + good[2:] + bad[1:])
write("alone.jsonl", [line for line in good if line["custom_id"] == "people/1"])
PYTHON
n=$(wc -l <"$work/in.jsonl")
base=(--model "$model" --block-size 512)
# The answers alone: text, reason and counts by custom_id.
answers() { # output
  python3 - "$1" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    line = json.loads(line)
    if line["error"] is None:
        body = line["response"]["body"]
        print(json.dumps([line["custom_id"], body["choices"], body["usage"], body["model"]]))
PYTHON
}
same_answers() { [ -n "$(answers "$1")" ] && [ "$(answers "$1")" = "$(answers "$2")" ]; }
order() { python3 -c 'import json, sys; print([json.loads(line)["custom_id"] for line in open(sys.argv[1])])' "$1"; }

on 1 run "${base[@]}" --input "$work/in.jsonl" --output "$work/one.jsonl"
check "a batch file is known by itself and answered" [ $code -eq 0 ]
check "each context is encoded once" says "over 6 context(s)"
"$program" inspect "$work/one.jsonl" --input "$work/in.jsonl" >"$work/out" 2>"$work/log"
check "inspect shows its answers beside its requests" [ $? -eq 0 -a "$(grep -c '^  asked' "$work/out")" -eq "$n" ]
sed '2s/"content":"/"content":"x/' "$work/one.jsonl" >"$work/changed.jsonl"
"$program" inspect "$work/changed.jsonl" >"$work/out" 2>"$work/log"
check "and a line that was changed" [ $? -eq 65 ]
check "by its number" says 'changed.jsonl:2: the line was changed'
check "the lines stand in the order of the requests" [ "$(order "$work/one.jsonl")" = "$(order "$work/in.jsonl")" ]
check "what is hidden is found" grep -q '"custom_id":"numbers/0".*"content":" 4266474' "$work/one.jsonl"
check "and a line is as the format has it" python3 - "$work/one.jsonl" <<'PYTHON'
import json, math, sys
lines = {json.loads(line)["custom_id"]: json.loads(line) for line in open(sys.argv[1])}
chat, plain = lines["likely"], lines["plain"]
body, choice = chat["response"]["body"], chat["response"]["body"]["choices"][0]
assert chat["error"] is None and chat["response"]["status_code"] == 200 and body["object"] == "chat.completion"
assert choice["message"]["role"] == "assistant" and choice["finish_reason"] in ("stop", "length")
usage = body["usage"]
assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
content = choice["logprobs"]["content"]
assert len(content) == usage["completion_tokens"]
for token in content:  # greedy: the token is the likeliest
    assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0 and len(token["top_logprobs"]) == 2
    assert bytes(token["bytes"]).decode() == token["token"] == token["top_logprobs"][0]["token"]
    assert math.exp(token["logprob"]) + math.exp(token["top_logprobs"][1]["logprob"]) < 1.0001
assert "".join(token["token"] for token in content).startswith(choice["message"]["content"])
assert plain["response"]["body"]["object"] == "text_completion"
text = plain["response"]["body"]["choices"][0]["text"]
content_of = lambda name: lines[name]["response"]["body"]["choices"][0]["message"]["content"]
assert text == content_of("likely") == content_of("file"), (text, content_of("likely"), content_of("file"))
assert content_of("drawn") == content_of("drawn again")
PYTHON

on 3 run "${base[@]}" --input "$work/in.jsonl" --output "$work/three.jsonl"
check "three ranks give the same answers" same_answers "$work/one.jsonl" "$work/three.jsonl"
on 3 run "${base[@]}" --input "$work/in.jsonl" --output "$work/groups.jsonl" --ranks-per-document 1
check "and so do three groups" same_answers "$work/one.jsonl" "$work/groups.jsonl"
on 1 run "${base[@]}" --input "$work/alone.jsonl" --output "$work/alone.out"
check "and a request alone" [ "$(answers "$work/alone.out")" = "$(answers "$work/one.jsonl" | grep '"people/1"')" ]

on 2 run "${base[@]}" --input "$work/mixed.jsonl" --output "$work/mixed.out"
check "requests that cannot be answered do not stop the batch" [ $code -eq 65 ]
check "they are lines in their place" [ "$(order "$work/mixed.out")" = "$(order "$work/mixed.jsonl")" ]
check "with the status of a bad request" [ "$(grep -c '"status_code":400.*"error":{"code":"invalid_request"' "$work/mixed.out")" -eq 3 ]
check "and change no other answer" same_answers "$work/one.jsonl" "$work/mixed.out"
on 1 run "${base[@]}" --input "$work/mixed.jsonl" --output "$work/mixed.out"
check "a rerun tries these alone" says "0 new answer(s), $n already there, 3 bad line(s)"

# Killed with some answers written and others in the journal.
timeout $hung mpirun --oversubscribe -n 2 "$program" run "${base[@]}" --input "$work/in.jsonl" --output "$work/killed.jsonl" \
  >"$work/out" 2>"$work/log" &
job=$!
until [ -s "$work/killed.jsonl" ]; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
kill -KILL $(pgrep -P "$(pgrep -P $job)") 2>/dev/null
wait $job
check "a killed run leaves a part" [ "$(wc -l <"$work/killed.jsonl")" -lt $n ]
on 3 run "${base[@]}" --input "$work/in.jsonl" --output "$work/killed.jsonl"
check "and the next one completes it" [ $code -eq 0 ]
check "without answering again what was there" says " [1-9][0-9]* already there"
check "to the same answers" same_answers "$work/one.jsonl" "$work/killed.jsonl"
check "in order" [ "$(order "$work/killed.jsonl")" = "$(order "$work/in.jsonl")" ]
sed -i '2s/"content":" /"content":" x/' "$work/killed.jsonl"
on 1 run "${base[@]}" --input "$work/in.jsonl" --output "$work/killed.jsonl"
check "a changed line is noticed and answered again" says "1 new answer(s), $((n - 1)) already there"
check "as before" same_answers "$work/one.jsonl" "$work/killed.jsonl"

on 2 encode "${base[@]}" --input "$work/in.jsonl" --checkpoint-dir "$work/kept"
check "encode keeps the contexts" [ $code -eq 0 -a "$(ls "$work/kept" | wc -l)" -ge 4 ]
on 1 answer "${base[@]}" --input "$work/in.jsonl" --checkpoint-dir "$work/kept" --output "$work/kept.jsonl"
check "and answer asks them" same_answers "$work/one.jsonl" "$work/kept.jsonl"

for i in 0 1; do
  on 1 run "${base[@]}" --input "$work/in.jsonl" --output "$work/shard$i.jsonl" --shard $i/2
done
check "shards share the contexts" [ "$(cat "$work/shard0.jsonl" "$work/shard1.jsonl" | wc -l)" -eq $n ]
cat "$work/shard0.jsonl" "$work/shard1.jsonl" >"$work/shards.jsonl"
check "and answer alike" [ "$(answers "$work/shards.jsonl" | sort)" = "$(answers "$work/one.jsonl" | sort)" ]

on 1 run "${base[@]}" --input "$work/in.jsonl" --output "$work/marked.jsonl" --question-marker "What is the special"
check "a marker that a request lacks is its error" [ $code -eq 65 ]
check "which names the option" grep -q '"custom_id":"people/0".*--question-marker' "$work/marked.jsonl"
check "others are asked as before" \
  [ "$(answers "$work/marked.jsonl" | grep '"numbers/0"')" = "$(answers "$work/one.jsonl" | grep '"numbers/0"')" ]
on 1 run "${base[@]}" --input "$work/in.jsonl" --output "$work/published.jsonl" --output-format star-attention
check "another format of output is refused" [ $code -eq 2 -a ! -e "$work/published.jsonl" ]
gzip -k "$work/in.jsonl"
on 1 run "${base[@]}" --input "$work/in.jsonl.gz" --output "$work/packed.jsonl"
check "a packed batch file says to unpack it" [ $code -eq 65 -a ! -e "$work/packed.jsonl" ]
check "in these words" says "gunzip"
on 1 run "${base[@]}" --input - --output "$work/piped.jsonl" <"$work/alone.jsonl"
check "a piped one is refused by the line" grep -q 'an OpenAI batch file' "$work/piped.jsonl"
on 1 run "${base[@]}" --input "$work/in.jsonl" --output "$work/dry.jsonl" --dry-run
check "--dry-run plans the first request" says "document 'numbers/0'"
"$program" tokenize --model "$model" --input "$work/alone.jsonl" --counts >"$work/out" 2>"$work/log"
check "tokenize shows a request's tokens" shows "people/1: query people/1 [0-9]+ token"
exit $failed
