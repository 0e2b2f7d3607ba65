# SPDX-License-Identifier: Apache-2.0
"""All the questions that a generated document answers.

`starattn generate` asks one question a document; a small model learns faster from several. The facts
are read back from the document's text, and each question is worded as the tool words it."""
import re
from dataclasses import dataclass

NEEDLE = re.compile(r"One of the special magic (number|uuid)s for (\S+) is: (\S+)\.")
ASSIGNMENT = re.compile(r"^VAR (\w+) = (?:VAR (\w+)|(\d+))", re.M)
PERSON = r"(Mary|John|Daniel|Sandra|Bill|Fred|Jeff)"
EVENT = re.compile(
    PERSON + r" (?:(?:moved|went|travelled|journeyed) to the (?P<place>\w+)"
    r"|(?:took|picked up|grabbed) the (?P<taken>\w+) there"
    r"|(?:dropped|put down|left) the (?P<left>\w+) there"
    r"|(?:gave|handed|passed) the (?P<given>\w+) to (?P<receiver>\w+))\.")
DIRECTION = re.compile(r"The (\w+) is (north|south|east|west) of the (\w+)\.")


@dataclass
class Question:
    text: str  # question and the beginning of the answer
    answer: str


def list_of(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + ", and " + names[-1]


def about_needles(kind, keys, values):
    noun = f"special magic {kind}" + ("s" if len(values) > 1 else "")
    what, verb = ("What are all the", "are") if len(values) > 1 else ("What is the", "is")
    about = f"{noun} for {list_of(keys)} mentioned in the provided text"
    return Question(f"{what} {about}? The {about} {verb}", f" {list_of(values)}.")


def needle_questions(document, random):
    values, kind = {}, "number"
    for kind, key, value in NEEDLE.findall(document["context"]):
        values.setdefault(key, []).append(value)
    questions = [about_needles(kind, [key], values[key]) for key in values]
    random.shuffle(questions)
    if document["meta"]["task"] == "niah_multiquery":
        keys = list(values)
        random.shuffle(keys)
        together = about_needles(kind, keys, [values[key][0] for key in keys])
        questions = [together] + questions[:2]
    return questions


def chain_questions(document, _):
    """The variables of a chain in the order of assignment; the worked example is asked by the text."""
    text, query = document["context"], document["queries"][0]
    value_of, chains = {}, {}
    for name, source, number in ASSIGNMENT.findall(text):
        value_of[name] = number or value_of[source]
        chains.setdefault(value_of[name], []).append(name)
    asked = re.search(r"value (\d+)", query["text"]).group(1)
    return [Question(query["text"], " ".join(chains[asked]))]  # the text ends with a space


def in_order_of_appearance(words, text):
    places = {}
    for place, word in enumerate(re.findall(r"[\w-]+", text)):
        places.setdefault(word, place)
    return sorted(words, key=places.get)


def common_word_questions(document, _):
    query = document["queries"][0]
    task_text = document["context"].rsplit("Below is a numbered list", 1)[1].split("\n", 1)[1]
    words = in_order_of_appearance(query["answers"], task_text)
    return [Question(query["text"], "".join(f" {i}. {word}" for i, word in enumerate(words, 1)))]


def frequent_word_questions(document, _):
    query = document["queries"][0]
    return [Question(query["text"], " " + " ".join(query["answers"]))]


def where_questions(document, random):
    """Where people are (qa1), where things are (qa2), where things were before (qa3): a document of
    one kind also answers the easier kinds."""
    task = document["meta"]["task"]
    place_of, holder, places = {}, {}, {}

    def arrive(thing, place):
        been = places.setdefault(thing, [])
        if not been or been[-1] != place:
            been.append(place)

    for event in EVENT.finditer(document["context"]):
        who = event.group(1)
        if event["place"]:
            place_of[who] = event["place"]
            for thing, by in holder.items():
                if by == who:
                    arrive(thing, event["place"])
        elif event["taken"]:
            holder[event["taken"]] = who
            arrive(event["taken"], place_of[who])
        elif event["left"]:
            holder[event["left"]] = None

    people = [Question(f"\nWhere is {who}? Answer:", f" {place}.") for who, place in place_of.items()]
    things = [Question(f"\nWhere is the {thing}? Answer:", f" {been[-1]}.")
              for thing, been in places.items()]
    before = [Question(f"\nWhere was the {thing} before the {been[-1]}? Answer:", f" {been[-2]}.")
              for thing, been in places.items() if len(been) > 1 and been.count(been[-1]) == 1]
    for questions in (people, things, before):
        random.shuffle(questions)
    return {"qa1": people, "qa2": things + people[:1], "qa3": before + things[:1] + people[:1]}[task]


def direction_questions(document, random):
    questions = []
    for one, direction, other in DIRECTION.findall(document["context"]):
        questions += [Question(f"\nWhat is {direction} of the {other}? Answer:", f" {one}."),
                      Question(f"\nWhat is the {one} {direction} of? Answer:", f" {other}.")]
    random.shuffle(questions)
    return questions


def gift_questions(document, random):
    """Every way to ask about a gift that has one answer."""
    gifts = [(e.group(1), e["given"], e["receiver"]) for e in EVENT.finditer(document["context"])
             if e["given"]]
    ways = [("What did {0} give to {2}?", (0, 2), 1), ("Who gave the {1} to {2}?", (1, 2), 0),
            ("Who did {0} give the {1} to?", (0, 1), 2), ("Who gave the {1}?", (1,), 0),
            ("Who received the {1}?", (1,), 2)]
    answers = {}
    for gift in gifts:
        for form, _, asked in ways:
            answers.setdefault(form.format(*gift), set()).add(gift[asked])
    questions = [Question(f"\n{text} Answer:", f" {found.pop()}.")
                 for text, found in answers.items() if len(found) == 1]
    random.shuffle(questions)
    return questions


def questions_of(document, random):
    """Questions in the order to ask them; every one is answered by the document's context alone."""
    task = document["meta"]["task"]
    if task.startswith("niah"):
        return needle_questions(document, random)
    makers = {"vt": chain_questions, "cwe": common_word_questions, "fwe": frequent_word_questions,
              "qa1": where_questions, "qa2": where_questions, "qa3": where_questions,
              "qa4": direction_questions, "qa5": gift_questions}
    return makers[task](document, random)


def is_right(document, questions):
    """Do our questions give the document's own answer where they ask the document's own question?"""
    own = document["queries"][0]
    for question in questions:
        if question.text == own["text"]:
            return all(answer in question.answer for answer in own["answers"])
    return True
