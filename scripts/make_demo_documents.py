#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes data/demo.jsonl: short documents of the three kinds that data/pilot-model was trained on.

usage: make_demo_documents.py > data/demo.jsonl
"""
import json
import random

ADJECTIVES = """quiet broken shiny giant jolly urban tender dusty gentle rapid little eager merry early lazy
lucky plain fierce noble hollow large young calm amber wild warm ancient happy clever crisp mellow narrow rough keen
tall jagged silent golden dull vivid shrill velvet bitter brave empty proud humble dark faint""".split()
NOUNS = """garden falcon island glacier candle hunter forest lagoon teapot yacht goblet helmet anchor dagger kettle
mountain easel tower castle umbrella hammer desert comet insect jacket ribbon engine river pillow doctor volcano
prairie market quarry planet orchid canyon wagon zebra valley basket ladder farmer camel violin eagle magnet meadow
bridge actor needle guitar saddle harbor ocean rocket village baker""".split()
VERBS = "sells finds closes forgets opens studies builds leaves follows paints moves repairs carries watches remembers".split()
PEOPLE = "Emma John Peter Laura Mary Sandra Daniel Victor".split()
PLACES = "hallway bathroom bedroom office kitchen garden".split()


def prose(rng):
    thing = lambda: f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
    return f"The {thing()} {rng.choice(VERBS)} the {thing()}."


def hide(rng, sentences, needles):
    """Needles keep their order, at random places."""
    places = sorted(rng.sample(range(len(sentences)), len(needles)))
    for shift, (place, needle) in enumerate(zip(places, needles)):
        sentences.insert(place + shift, needle)
    return " ".join(sentences)


def needles(rng, name, n_sentences, n_keys):
    keys = [f"{rng.choice(ADJECTIVES)}-{noun}" for noun in rng.sample(NOUNS, n_keys)]
    values = [str(rng.randrange(1000000, 10000000)) for _ in keys]
    text = hide(rng, [prose(rng) for _ in range(n_sentences)],
                [f"One of the special magic numbers for {k} is: {v}." for k, v in zip(keys, values)])
    context = ("Some special magic numbers are hidden within the following text. Make sure to memorize it. "
               "I will quiz you about the numbers afterwards.\n" + text)
    ask = ("\nWhat is the special magic number for {0} mentioned in the provided text? "
           "The special magic number for {0} mentioned in the provided text is")
    return {"id": name, "context": context,
            "queries": [{"id": k, "text": ask.format(k), "answers": [v], "max_new_tokens": 16}
                        for k, v in zip(keys, values)]}


def variables(rng, name, n_sentences):
    names = ["".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5)) for _ in range(5)]
    value = str(rng.randrange(10000, 100000))
    chain = [f"VAR {names[0]} = {value}."] + [f"VAR {b} = VAR {a}." for a, b in zip(names, names[1:])]
    text = hide(rng, [prose(rng) for _ in range(n_sentences)], chain)
    context = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n" + text
    query = (f"\nFind all variables that are assigned the value {value} in the text above. According to the chain(s) "
             f"of variable assignment, {len(names)} variables are assigned the value {value}, they are:")
    return {"id": name, "context": context,
            "queries": [{"id": "chain", "text": query, "answers": names, "max_new_tokens": 48}]}


def people(rng, name, n_sentences):
    where = {}
    facts = []
    for _ in range(8):
        person, place = rng.choice(PEOPLE), rng.choice(PLACES)
        where[person] = place
        facts.append(f"{person} {rng.choice(['moved', 'went', 'travelled', 'journeyed'])} to the {place}.")
    text = hide(rng, [prose(rng) for _ in range(n_sentences)], facts)
    context = ("I will give you context with the facts about positions of different persons hidden in some random text "
               "and a question.\n" + text)
    return {"id": name, "context": context,
            "queries": [{"id": p, "text": f"\nWhere is {p}? Answer:", "answers": [w], "max_new_tokens": 8}
                        for p, w in sorted(where.items())[:3]]}


def main():
    rng = random.Random(20261123)
    for i in range(2):
        print(json.dumps(needles(rng, f"numbers-{i + 1}", 300 + 100 * i, 3)))
        print(json.dumps(people(rng, f"people-{i + 1}", 300 + 100 * i)))
        print(json.dumps(variables(rng, f"variables-{i + 1}", 200 + 50 * i)))


if __name__ == "__main__":
    main()
