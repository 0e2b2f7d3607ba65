#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Answers that are held to a form, by options, by the queries themselves and in batch files.
# usage: structured_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

python3 - "$source_dir/data/demo.jsonl" "$work" <<'PYTHON' || exit 1
import json, sys
document = json.loads(open(sys.argv[1]).readline())
work = sys.argv[2]
context, question = document["context"], document["queries"][0]["text"]
schema = {"type": "object", "properties": {
    "code": {"type": "string", "pattern": "^\\d{3}-\\d{4}$"}, "city": {"type": "string", "maxLength": 8},
    "score": {"type": "number", "minimum": -1, "maximum": 1}, "tags": {"type": "array", "items": {"enum": ["a", "é"]},
    "maxItems": 3}}, "required": ["code", "score", "tags"], "additionalProperties": False}
json.dump(schema, open(f"{work}/schema.json", "w"), indent=2)
plain = {"id": "d", "context": context, "queries": [{"id": str(i), "text": question} for i in range(3)]}
own = {"id": "own", "context": context, "queries": [
    {"id": "schema", "text": question, "schema": schema}, {"id": "regex", "text": question, "regex": "[0-9]{7}(, [0-9]{7})?"},
    {"id": "choice", "text": question, "choice": ["no", "not at all", "yes, it is"]}, {"id": "free", "text": question}]}
bad = {"id": "bad", "context": context, "queries": [{"text": question, "schema": {"multipleOf": 3}}]}
write = lambda name, lines: open(f"{work}/{name}", "w").writelines(json.dumps(line) + "\n" for line in lines)
write("plain.jsonl", [plain])
write("own.jsonl", [own, bad])
def request(name, **body):
    body = {"messages": [{"role": "user", "content": context + "\n\n" + question}], "max_tokens": 160, **body}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
requests = [request(f"hot {i}", response_format=form, temperature=3, seed=i) for i in range(12)]
requests += [request("greedy", response_format=form), request("short", response_format=form, max_tokens=5),
             request("object", response_format={"type": "json_object"}, temperature=1, seed=3),
             request("text", response_format={"type": "text"}, max_tokens=8), request("free", max_tokens=8),
             request("regex", structured_outputs={"regex": "[a-z]{3}"}), request("choice", guided_choice=["x", "yy"]),
             request("likely", guided_choice=["x", "yy"], logprobs=True, top_logprobs=3),
             request("bad", response_format={"type": "json_schema", "json_schema": {"schema": {"not": {}}}}),
             request("two", guided_regex="a", response_format={"type": "json_object"})]
write("requests.jsonl", requests)
PYTHON
base=(--model "$model" --block-size 512)
holds() { # output, python expression
  python3 -c '
import json, re, sys
answers, errors = {}, {}
for line in map(json.loads, open(sys.argv[1])):
    if line.get("error"):
        errors[line.get("custom_id") or line["id"]] = line["error"] if "line" in line else line["error"]["message"]
    elif "custom_id" in line:
        choice = line["response"]["body"]["choices"][0]
        answers[line["custom_id"]] = {**choice, "answer": choice["message"]["content"]}
    else:
        answers[line["query_id"]] = line
def fits(answer):
    value = json.loads(answer["answer"])
    return (set(value) <= {"code", "city", "score", "tags"} and bool(re.fullmatch("[0-9]{3}-[0-9]{4}", value["code"]))
            and len(value.get("city", "")) <= 8 and -1 <= value["score"] <= 1 and len(value["tags"]) <= 3
            and all(tag in ("a", "é") for tag in value["tags"]))
text = lambda name: answers[name]["answer"]
is_cut = lambda name: answers[name]["finish_reason"] == "length"
ended = [a for name, a in answers.items() if (name.startswith("hot") or name in "012") and not is_cut(name)]
sys.exit(not eval(sys.argv[2]))' "$work/$1" "$2"
}
choices() { grep -o '"custom_id":"[^"]*"\|"choices":.*"usage"' "$work/$1"; }
same_choices() { [ -n "$(choices "$1")" ] && [ "$(choices "$1")" = "$(choices "$2")" ]; }

on 1 run "${base[@]}" --input "$work/requests.jsonl" --output "$work/one.jsonl"
check "a batch with errors among its requests ends with 65" [ $code -eq 65 ]
check "drawn answers are what the schema says" holds one.jsonl 'len(ended) >= 4 and all(fits(a) for a in ended)'
check "and so is a greedy one" holds one.jsonl 'is_cut("greedy") or fits(answers["greedy"])'
check "an answer that is cut says so" holds one.jsonl 'answers["short"]["finish_reason"] == "length"'
check "any object is an object" \
  holds one.jsonl 'answers["object"]["finish_reason"] == "length" or isinstance(json.loads(text("object")), dict)'
check "a text is free" holds one.jsonl 'text("text") == text("free") != ""'
check "vLLM's keys are read" holds one.jsonl 're.fullmatch("[a-z]{3}", text("regex")) and text("choice") in ("x", "yy")'
check "an answer that nothing can follow has ended" holds one.jsonl 'answers["choice"]["finish_reason"] == "stop"'
check "logprobs are the model's own" holds one.jsonl \
  'text("likely") == text("choice") and answers["likely"]["logprobs"]["content"][0]["top_logprobs"][0]["token"] not in ("x", "y", "yy")'
check "a schema that is not supported is its request's error" holds one.jsonl '"JSON schema: at '"'#'"': keyword '"'not'"'" in errors["bad"]'
check "and so are two forms" holds one.jsonl '"more than one key" in errors["two"] and len(errors) == 2'
on 3 run "${base[@]}" --input "$work/requests.jsonl" --output "$work/three.jsonl" --query-ranks all
check "three ranks give the same answers" same_choices one.jsonl three.jsonl
on 2 run "${base[@]}" --input "$work/requests.jsonl" --output "$work/lookup.jsonl" --lookup 7 --shard-weights on
check "and so do shared weights and --lookup" same_choices one.jsonl lookup.jsonl
grep '"hot 7"' "$work/requests.jsonl" >"$work/alone.jsonl"
on 1 run "${base[@]}" --input "$work/alone.jsonl" --output "$work/alone.out"
check "and so does a request alone" [ "$(choices alone.out)" = "$(choices one.jsonl | grep -A1 '"hot 7"')" ]

on 2 run "${base[@]}" --input "$work/own.jsonl" --output "$work/own.out" --max-new-tokens 90
check "queries say their own forms" holds own.out '(is_cut("schema") or fits(answers["schema"])) and re.fullmatch("[0-9]{7}(, [0-9]{7})?", text("regex"))'
check "each of them" holds own.out 'text("choice") in ("no", "not at all", "yes, it is") and "tokens" in answers["free"]'
check "a bad one is an error line" holds own.out '"query '"'0'"': JSON schema" in errors["bad"] and "multipleOf" in errors["bad"]'

on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/schema.out" --schema "$work/schema.json" \
  --max-new-tokens 160 --temperature 3
check "--schema is every answer's" holds schema.out 'any(map(fits, ended)) and all(map(fits, ended))'
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/schema.out" --choice yes,no --max-new-tokens 160 --temperature 3
check "another form is another setting" [ $code -ne 0 ]
check "which is named" says "answer_form"
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/choice.out" --choice "yes,no"
check "--choice takes a list" holds choice.out 'all(a["answer"] in ("yes", "no") for a in answers.values())'
printf 'choice = ["yes, it is", "yes, it was"]\n' >"$work/choice.toml"
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/commas.out" --config "$work/choice.toml"
check "and texts with commas from a config file" holds commas.out 'all(a["answer"] in ("yes, it is", "yes, it was") for a in answers.values())'
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/commas.out" --choice "yes, it is" --choice "yes, it was"
check "or one each time" says "already there"
printf '{"type": "text"}' | iconv -t UTF-16 >"$work/wide.json"
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/no.out" --schema "$work/wide.json"
check "a schema that is no UTF-8 is named for what it is" says "wide.json: .*UTF-16"
printf '{"type": "text"}' >"$work/wrong.json"
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/no.out" --schema "$work/wrong.json" --dry-run
check "a schema that cannot be is refused by its file's name" says "wrong.json: JSON schema: at '#/type'"
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/regex.out" --regex '[A-Z]{2}[,;] \d+!'
check "--regex is matched as a whole" holds regex.out 'all(re.fullmatch("[A-Z]{2}[,;] [0-9]+!", a["answer"]) or a["finish_reason"] == "length" for a in answers.values())'
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/no.out" --regex a --choice b
check "two forms are refused" [ $code -eq 2 -a ! -e "$work/no.out" ]
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/no.out" --regex '(a'
check "a bad one is refused before anything" [ $code -eq 2 -a ! -e "$work/no.out" ]
on 1 run "${base[@]}" --input "$work/plain.jsonl" --output "$work/no.out" --schema "$work/missing.json"
check "a schema that is missing is 66" [ $code -eq 66 ]

# Behind a template that opens its thinking.
thinker=$work/thinker
mkdir "$thinker"
ln -s "$(realpath "$model")"/* "$thinker"
echo "{{ messages[0].content }}{{ ' <think>' }}" >"$thinker/chat_template.jinja"
base=(--model "$thinker" --block-size 512 --max-new-tokens 60 --input "$work/plain.jsonl" --regex '[A-Z][a-z]{2,5}')
on 1 run "${base[@]}" --output "$work/think.out" --thinking keep --thinking-tokens 6
check "the form begins behind the thinking" \
  holds think.out 'all(re.fullmatch("[A-Z][a-z]{2,5}", a["answer"]) and a["reasoning"] for a in answers.values())'
on 2 run "${base[@]}" --output "$work/think2.out" --thinking keep --thinking-tokens 6
check "on two ranks as on one" same "$work/think.out" "$work/think2.out"
on 1 run "${base[@]}" --output "$work/no.out"
check "which has to be told apart" grep -q -- "--thinking keep or drop" "$work/no.out"
exit $failed
