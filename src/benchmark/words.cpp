// SPDX-License-Identifier: Apache-2.0
#include "benchmark/words.h"

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::string_view kAdjectives[] = {
    "quiet",    "broken",   "shiny",   "giant",   "jolly",   "urban",   "tender",  "dusty",
    "gentle",   "rapid",    "little",  "eager",   "merry",   "early",   "lazy",    "lucky",
    "plain",    "fierce",   "noble",   "hollow",  "large",   "young",   "calm",    "amber",
    "wild",     "warm",     "ancient", "happy",   "clever",  "crisp",   "mellow",  "narrow",
    "rough",    "keen",     "tall",    "jagged",  "silent",  "golden",  "dull",    "vivid",
    "shrill",   "velvet",   "bitter",  "brave",   "empty",   "proud",   "humble",  "dark",
    "faint",    "bold",     "bright",  "careful", "cheap",   "clumsy",  "cold",    "common",
    "crooked",  "curious",  "damp",    "deep",    "distant", "double",  "dry",     "elegant",
    "famous",   "fast",     "flat",    "foggy",   "fragile", "fresh",   "frozen",  "funny",
    "fuzzy",    "generous", "glad",    "grand",   "greedy",  "hasty",   "honest",  "hungry",
    "icy",      "idle",     "jealous", "kind",    "late",    "light",   "lonely",  "long",
    "loud",     "loyal",    "marine",  "mighty",  "modern",  "modest",  "muddy",   "neat",
    "nervous",  "nimble",   "odd",     "old",     "pale",    "patient", "perfect", "polite",
    "precious", "pretty",   "private", "purple",  "quick",   "rare",    "rich",    "round",
    "royal",    "rural",    "rusty",   "sandy",   "secret",  "serious", "shallow", "sharp",
    "short",    "shy",      "silly",   "simple",  "sleepy",  "slim",    "slow",    "small",
    "smooth",   "soft",     "solid",   "spare",   "square",  "steady",  "steep",   "stormy",
    "strange",  "strict",   "sturdy",  "sudden",  "sunny",   "sweet",   "swift",   "thick",
    "thin",     "tidy",     "tiny",    "tired",   "tough",   "unusual", "useful",  "vast",
    "weary",    "wide",     "windy",   "wise",    "wooden",  "worn",    "yellow",  "zealous"};

constexpr std::string_view kNouns[] = {
    "falcon",   "island",   "glacier",   "candle",   "hunter",  "forest",   "lagoon",   "teapot",
    "yacht",    "goblet",   "helmet",    "anchor",   "dagger",  "kettle",   "mountain", "easel",
    "tower",    "castle",   "umbrella",  "hammer",   "desert",  "comet",    "insect",   "jacket",
    "ribbon",   "engine",   "river",     "pillow",   "doctor",  "volcano",  "prairie",  "market",
    "quarry",   "planet",   "orchid",    "canyon",   "wagon",   "zebra",    "valley",   "basket",
    "ladder",   "farmer",   "camel",     "violin",   "eagle",   "magnet",   "meadow",   "bridge",
    "actor",    "needle",   "guitar",    "saddle",   "harbor",  "ocean",    "rocket",   "village",
    "baker",    "acorn",    "airport",   "album",    "almond",  "antler",   "apron",    "arrow",
    "artist",   "atlas",    "autumn",    "badge",    "bakery",  "balcony",  "bamboo",   "banner",
    "barrel",   "beacon",   "beetle",    "bell",     "bench",   "bicycle",  "blanket",  "blossom",
    "bottle",   "boulder",  "bracelet",  "branch",   "brick",   "brush",    "bucket",   "buckle",
    "bus",      "button",   "cabin",     "cable",    "cactus",  "camera",   "canal",    "canoe",
    "carpet",   "carrot",   "cavern",    "chair",    "chapel",  "cherry",   "chimney",  "cider",
    "circus",   "clock",    "cloud",     "clover",   "coast",   "compass",  "copper",   "coral",
    "cottage",  "cotton",   "cradle",    "cricket",  "crystal", "curtain",  "dancer",   "diamond",
    "dolphin",  "donkey",   "dragon",    "drum",     "elbow",   "ember",    "engineer", "envelope",
    "fabric",   "feather",  "fence",     "ferry",    "fiddle",  "finger",   "flute",    "fountain",
    "fox",      "galaxy",   "gallery",   "garlic",   "gate",    "ginger",   "glove",    "grape",
    "gravel",   "hamlet",   "handle",    "hawk",     "hazel",   "hedge",    "heron",    "hill",
    "honey",    "horizon",  "horse",     "ink",      "inn",     "iron",     "ivory",    "jasmine",
    "jelly",    "jewel",    "judge",     "jungle",   "kite",    "kitten",   "knight",   "lantern",
    "lawyer",   "leather",  "lemon",     "library",  "lily",    "linen",    "lion",     "lizard",
    "lobster",  "locket",   "maple",     "marble",   "mason",   "melody",   "mill",     "miner",
    "mirror",   "monument", "moon",      "mosaic",   "museum",  "mushroom", "nest",     "nickel",
    "notebook", "nurse",    "oak",       "oasis",    "olive",   "orchard",  "otter",    "oven",
    "owl",      "oyster",   "paddle",    "palace",   "panther", "paper",    "parrot",   "pastry",
    "pearl",    "pebble",   "pencil",    "pepper",   "piano",   "pigeon",   "pilot",    "pine",
    "pirate",   "plum",     "pocket",    "poet",     "pond",    "potter",   "pumpkin",  "puppet",
    "puzzle",   "quilt",    "rabbit",    "radio",    "railway", "raven",    "reef",     "rifle",
    "robin",    "rope",     "rose",      "sailor",   "salmon",  "sandal",   "scarf",    "school",
    "sculptor", "seagull",  "shadow",    "shell",    "shovel",  "signal",   "singer",   "sparrow",
    "spider",   "spoon",    "squirrel",  "stable",   "station", "statue",   "stone",    "street",
    "summit",   "sword",    "tailor",    "temple",   "theater", "thistle",  "thunder",  "tiger",
    "timber",   "tractor",  "trumpet",   "tulip",    "tunnel",  "turnip",   "turtle",   "vase",
    "vessel",   "walnut",   "waterfall", "weaver",   "whale",   "wheel",    "whistle",  "willow",
    "window",   "winter",   "wolf",      "workshop", "writer",  "yard",     "zipper",   "zoo"};

constexpr std::string_view kVerbs[] = {
    "sold",      "found",     "closed",   "forgot",  "opened",    "studied",  "built",
    "left",      "followed",  "painted",  "moved",   "repaired",  "carried",  "watched",
    "admired",   "avoided",   "borrowed", "bought",  "caught",    "chased",   "cleaned",
    "collected", "copied",    "covered",  "crossed", "described", "drew",     "dropped",
    "examined",  "exchanged", "faced",    "feared",  "fetched",   "filled",   "guarded",
    "guided",    "heard",     "held",     "helped",  "ignored",   "improved", "inspected",
    "joined",    "kept",      "lifted",   "liked",   "lost",      "loved",    "measured",
    "mended",    "missed",    "noticed",  "ordered", "owned",     "passed",   "photographed",
    "polished",  "praised",   "pulled",   "pushed",  "reached",   "recalled", "rented",
    "replaced",  "saved",     "searched", "shared",  "sketched",  "stored",   "touched",
    "traded",    "trusted",   "visited",  "wanted",  "washed",    "welcomed"};

template <typename... Parts>
std::string hyphened(const Parts&... parts) {
  std::string text;
  ((text += text.empty() ? "" : "-", text += parts), ...);
  return text;
}

// Word number i of all there are: adjectives, nouns, verbs, then the pairs, then the triples.
std::string word_at(std::size_t i) {
  for (const auto list : {adjectives(), nouns(), verbs()}) {
    if (i < list.size()) return std::string(list[i]);
    i -= list.size();
  }
  const auto a = adjectives();
  const auto n = nouns();
  if (i < a.size() * n.size()) return hyphened(a[i / n.size()], n[i % n.size()]);
  i -= a.size() * n.size();
  const std::size_t pair = i / n.size();
  return hyphened(a[pair / a.size()], a[pair % a.size()], n[i % n.size()]);
}

}  // namespace

std::span<const std::string_view> adjectives() {
  return kAdjectives;
}
std::span<const std::string_view> nouns() {
  return kNouns;
}
std::span<const std::string_view> verbs() {
  return kVerbs;
}

std::string adjective_noun(Random& random) {
  const std::string_view adjective = random.pick(kAdjectives);
  return hyphened(adjective, random.pick(kNouns));
}

std::vector<std::string> different_words(Random random, std::int64_t n) {
  const auto a = static_cast<std::int64_t>(adjectives().size());
  const auto b = static_cast<std::int64_t>(nouns().size());
  const std::int64_t plain = a + b + static_cast<std::int64_t>(verbs().size());
  std::int64_t pool = plain;
  if (n > pool) pool += a * b;
  if (n > pool) pool += a * a * b;
  if (n > pool) {
    fail(Exit::usage, "--length: {} different words are needed, there are {}", with_commas(n),
         with_commas(pool));
  }
  std::vector<std::string> words;
  for (const std::int64_t i : random.sample(pool, n))
    words.push_back(word_at(static_cast<std::size_t>(i)));
  return words;
}

}  // namespace starattn
