#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answers to random JSON schemas, drawn at a high temperature, held against a schema validator.

    pip install jsonschema
    scripts/check_schemas.py PROGRAM MODEL [N_SCHEMAS = 200] [SEED = 1]

Each answer that ended by itself has to be JSON that its schema accepts. Also run with several ranks
(mpirun -n 3 in front of PROGRAM, in quotes) and --lookup 7: the answers have to be the same.
"""

import json
import random
import shlex
import subprocess
import sys
import tempfile

import jsonschema

PATTERNS = ["^[a-z]{2,5}$", "^\\d{3}-\\d{4}$", "^(yes|no|maybe)!?$", "x", "^[A-Z][a-z]*( [A-Z][a-z]*){0,2}$",
            "^[\"\\\\\\n]{1,3}$", "^[α-ωé]+$", "^.{0,6}$"]


def number_schema(rng, kind):
    schema = {"type": kind}
    low = rng.choice([-1000, -3, 0, 0.25, 7, 99.5, -12.75])
    if rng.random() < 0.6:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.6:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = low + rng.choice([2, 5, 100, 12345])
    return schema


def string_schema(rng):
    schema = {"type": "string"}
    way = rng.randrange(4)
    if way == 0:
        schema["minLength"] = rng.randrange(4)
        schema["maxLength"] = schema["minLength"] + rng.randrange(6)
    elif way == 1:
        schema["pattern"] = rng.choice(PATTERNS)
    elif way == 2:
        schema["format"] = rng.choice(["date", "time", "date-time", "uuid", "email", "ipv4"])
    else:
        schema["maxLength"] = rng.randrange(12)
    return schema


def constant(rng):
    return rng.choice(["a", "bé", 'q"\\', 1, -2.5, True, None, [1, "x"], {"k": [None]}])


def random_schema(rng, depth):
    way = rng.randrange(5 if depth == 0 else 10)
    if way == 0:
        return number_schema(rng, rng.choice(["integer", "number"]))
    if way == 1:
        return string_schema(rng)
    if way == 2:
        return {"enum": [constant(rng) for _ in range(rng.randrange(1, 4))]}
    if way == 3:
        return {"type": rng.choice(["boolean", "null"])}
    if way == 4:
        return {"const": constant(rng)}
    if way == 5:
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]}
    if way in (6, 7):
        schema = {"type": "array", "maxItems": rng.randrange(4)}
        if rng.random() < 0.3:
            schema["prefixItems"] = [random_schema(rng, depth - 1) for _ in range(rng.randrange(1, 3))]
            schema["items"] = False
        else:
            schema["items"] = random_schema(rng, depth - 1)
            schema["minItems"] = rng.randrange(schema["maxItems"] + 1)
        return schema
    names = rng.sample(["id", "name", "é", 'a"b', "x/y", "tags", "tag"], rng.randrange(1, 5))
    schema = {"type": "object", "properties": {name: random_schema(rng, depth - 1) for name in names},
              "required": [name for name in names if rng.random() < 0.6]}
    more = rng.randrange(3)
    if more == 0:
        schema["additionalProperties"] = False
    if more == 1 and rng.random() < 0.3:
        schema["additionalProperties"] = random_schema(rng, 0)
    return schema


def tree_schema(rng):
    return {"$defs": {"node": {"type": "object", "properties": {
        "value": random_schema(rng, 0), "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1}},
        "required": ["value"]}}, "$ref": "#/$defs/node"}


def main():
    program, model = shlex.split(sys.argv[1]), sys.argv[2]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    schemas = [tree_schema(rng) if i % 10 == 9 else random_schema(rng, 3) for i in range(n)]
    with tempfile.TemporaryDirectory() as work:
        with open(f"{work}/in.jsonl", "w") as file:
            for i, schema in enumerate(schemas):
                body = {"messages": [{"role": "user", "content": "Some text to read.\n\nWhat is in it?"}],
                        "max_tokens": 200, "temperature": 3 if i % 3 else 0.8, "seed": i,
                        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
                file.write(json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions",
                                       "body": body}) + "\n")
        done = subprocess.run([*program, "run", "--model", model, "--input", f"{work}/in.jsonl", "--output",
                               f"{work}/out.jsonl"], capture_output=True, text=True)
        lines = [json.loads(line) for line in open(f"{work}/out.jsonl")]
    n_finished = n_wrong = n_refused = 0
    for line in lines:
        schema = schemas[int(line["custom_id"])]
        if line["error"]:
            n_refused += 1
            print("refused:", line["error"]["message"])
            continue
        choice = line["response"]["body"]["choices"][0]
        if choice["finish_reason"] != "stop":
            continue
        n_finished += 1
        text = choice["message"]["content"]
        try:
            kind = jsonschema.Draft202012Validator
            kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))
        except (ValueError, jsonschema.ValidationError) as error:
            n_wrong += 1
            print(f"WRONG: {json.dumps(schema)}\n  {text}\n  {str(error).splitlines()[0]}")
    print(f"{len(lines)} answers of {n}, {n_finished} ended by themselves, {n_refused} refused, {n_wrong} wrong")
    if done.returncode not in (0, 65) or len(lines) != n or n_wrong or n_refused or n_finished < n // 4:
        print(done.stderr[-2000:])
        sys.exit(1)


if __name__ == "__main__":
    main()
