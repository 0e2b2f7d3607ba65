// SPDX-License-Identifier: Apache-2.0
// Expected texts are what jinja2 3.1 writes with the settings of `transformers`.
#include "tokenizer/jinja.h"

#include <gtest/gtest.h>

#include <random>

#include "base/file.h"

namespace starattn::jinja {
namespace {

std::string written(const std::string& source) {
  return render(source, {{"messages", Json::array({{{"role", "user"}, {"content", " C "}}})},
                         {"add_generation_prompt", true},
                         {"tools", nullptr},
                         {"n", 3}});
}
std::string value(const std::string& expression) {
  return written("{{ " + expression + " }}");
}

TEST(Jinja, WritesTextsAndExpressions) {
  EXPECT_EQ(written(""), "");
  EXPECT_EQ(written("a {b} {"), "a {b} {");
  EXPECT_EQ(value("'a' + \"b\" ~ n"), "ab3");
  EXPECT_EQ(value(R"('it\'s\n\\')"), "it's\n\\");
  EXPECT_EQ(value("'}}' + '%}'"), "}}%}");
  EXPECT_EQ(value("missing"), "");
  EXPECT_EQ(value("missing.role"), "");
  EXPECT_EQ(value("none ~ true"), "NoneTrue");
  EXPECT_EQ(value("messages[0]['content'] ~ messages[-1].role ~ messages[1]"), " C user");
  EXPECT_EQ(value("messages[0].content|trim ~ messages[0].get('x', 'y')"), "Cy");
  EXPECT_EQ(value("messages | selectattr('role', 'equalto', 'user') | list | length"), "1");
  EXPECT_EQ(value("'a-b-c'.split('-')[-1] ~ ('x' if n > 3 else 'z')"), "cz");
  EXPECT_EQ(value("'a/b/c'.replace('/b', '').replace('/', '--').rstrip()"), "a--c");
  EXPECT_EQ(value("(1 + 2 - n % 2) ~ messages[1:]|length ~ (messages[::-1])|length"), "201");
  // As Mistral Small 3 collects messages.
  EXPECT_EQ(value("([] + [1] + messages + ['a'])|length ~ ([1] + [2])[1]"), "32");
}

TEST(Jinja, DecidesAsPythonDoes) {
  for (const char* holds :
       {"n == 3", "not n == 4", "n != 3 or true", "'a' in 'bab'", "'role' in messages[0]",
        "'x' not in ['a', 'b']", "tools is none", "missing is not defined", "n is number",
        "messages is iterable", "'abc'.startswith('ab')",
        "not '' and not [] and not 0 and not none", "(n % 2 == 0) != (n == 3)",
        "not(n == 3 and n < 2)", "missing == missing", "-1 < 0", "n not in []"}) {
    EXPECT_EQ(written("{% if " + std::string(holds) + " %}y{% else %}n{% endif %}"), "y") << holds;
  }
}

// Qwen3-Coder asks first whether there are tools, and then how many.
TEST(Jinja, DoesNotWorkOutWhatIsDecided) {
  EXPECT_EQ(value("tools is iterable and tools | length > 0"), "False");
  EXPECT_EQ(value("not tools or tools | length > 0"), "True");
  EXPECT_EQ(value("(tools and f(-tools % 0, tools[::tools], ['a'.upper()])) is none"), "True");
  EXPECT_EQ(value("n if n == 3 else tools | first + (1 - 'a') ~ messages"), "3");
  EXPECT_EQ(value("false and ('a' not in tools or n < 'b' or n is odd) or n"), "3");
  EXPECT_EQ(value("true or raise_exception('no')"), "True");
  EXPECT_EQ(value("(none and none.x()) ~ (0 and true and tools|length) ~ n"), "None03");
  // The condition stands behind what it decides.
  EXPECT_EQ(value("tools|length if tools else n"), "3");
  EXPECT_EQ(value("(tools|length if tools) ~ n"), "3");
  EXPECT_EQ(value("raise_exception('no') if n == 4 else (1 - 'a' if none else 'b')"), "b");
  EXPECT_EQ(value("([tools|first if false else 'a'][0] if n else f()) ~ n"), "a3");
  EXPECT_THROW(value("tools|length if n else 1"), NotUnderstood);
  EXPECT_THROW(value("(tools|length if n else 1) if n else 2"), NotUnderstood);
  EXPECT_THROW(value("(n n) if false else 2"), NotUnderstood);
  EXPECT_THROW(value("1 if true else (n n)"), NotUnderstood);
  EXPECT_THROW(value("n and tools | length > 0"), NotUnderstood);
  EXPECT_THROW(value("false and (n n)"), NotUnderstood);
}

TEST(Jinja, HasTheSameDateEveryDay) {
  EXPECT_EQ(value("strftime_now('%d %B %Y')"), "01 January 2026");
  EXPECT_EQ(value("strftime_now('%b. %d, %Y-%m')"), "Jan. 01, 2026-01");
  // Llama 3's templates have a date of their own.
  EXPECT_EQ(value("strftime_now('%Y') if strftime_now is defined else '26 Jul 2024'"),
            "26 Jul 2024");
}

TEST(Jinja, RunsStatements) {
  EXPECT_EQ(written("{% if n == 1 %}1{% elif n == 3 %}3{% else %}x{% endif %}"), "3");
  EXPECT_EQ(written("{% for x in [1, 2] %}{{ x }}{{ loop.index0 }}{{ loop.last }};{% endfor %}"),
            "10False;21True;");
  EXPECT_EQ(written("{% for x in [] %}{{ x }}{% else %}none{% endfor %}"), "none");
  // What is set in a loop ends with it, but in a namespace.
  EXPECT_EQ(written("{% set a = 1 %}{% set ns = namespace(b=1) %}{% for x in [2] %}{% set a = x %}"
                    "{% set ns.b = x %}{{ a }}{% endfor %}{{ a }}{{ ns.b }}"),
            "212");
  EXPECT_EQ(written("{% macro m(x) %}{{ x|tojson }}{% endmacro %}{# a comment #}b"), "b");
  EXPECT_EQ(written("{% if false %}{% for k, v in x.items() if k %}{{ f(x) }}{% endfor %}"
                    "{% endif %}a"),
            "a");
}

TEST(Jinja, CallsMacros) {
  EXPECT_EQ(written("{% macro m(x, y='-') %}<{{ x }}{{ y }}{{ n }}>{% endmacro %}"
                    "{{ m(1) }}{{ m(2, y='+') }}{{ m('a', 'b') ~ m() }}"),
            "<1-3><2+3><ab3><-3>");
  // They see what stands outside of everything, and leave it as it is.
  EXPECT_EQ(written("{% set a = 1 %}{% macro m() %}{{ a }}{{ v }}{% set a = 5 %}{{ a }}"
                    "{% endmacro %}{% for v in [7] %}{% set a = 2 %}{{ m() }}{% endfor %}{{ a }}"),
            "151");
  EXPECT_EQ(written("{% macro a(x) %}[{{ x }}]{% endmacro %}{% macro b(x) %}{% for y in x %}"
                    "{{ a(y) }}{% endfor %}{% endmacro %}{{ b([3, 4]) }}"),
            "[3][4]");
  EXPECT_EQ(written("{% macro m(x) -%}\n  {%- if x is string -%}\n    {{- x }}\n  {%- endif -%}\n"
                    "{%- endmacro -%}\n{{ m('t') }}|{{ not m('t').endswith('t') }}"),
            "t|False");
  EXPECT_EQ(written("{% macro m(x, y=x, z=',') %}{{ x }}{{ y }}{{ z }}{% endmacro %}"
                    "{{ m(1) }}{{ m(1, 2, 3) }}{{ m(1, z='a') }}"),
            "11,12311a");
  EXPECT_EQ(written("{% set ns = namespace(n=1) %}{% macro m() %}{% set ns.n = ns.n + 1 %}"
                    "{% endmacro %}{{ m() }}{{ m() }}{{ ns.n }}"),
            "3");
  // One that fails where its result decides nothing leaves no trace.
  EXPECT_EQ(written("{% macro m() %}a{% for x in [1] %}{{ f() }}{% endfor %}{% endmacro %}"
                    "{{ m() if false else 'b' }}{% for x in [2] %}{{ x }}{% endfor %}c"),
            "b2c");
  for (const char* source :
       {"{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, 2) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% macro m %}a{% endmacro %}",
        "{% macro m() %}a", "{% macro m() %}{{ f() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% for x in [1, 2] %}{{ m() ~ m() }}{% endfor %}"
        "{% endmacro %}{{ m() }}",
        "{% macro m(x=m()) %}{% endmacro %}{{ m() }}",
        "{% macro f() %}{% macro m() %}{% endmacro %}{% endmacro %}"
        "{% macro m(x=f()) %}{% endmacro %}{{ m() }}",
        "{% for x in [1] %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}"
        "{% endfor %}",
        "{% macro m(x) %}{% set x.n = 2 %}{% endmacro %}"
        "{% set ns = namespace(n=1) %}{{ m(ns) }}{{ ns.n }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(y=1) }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, x=1) }}",
        "{% macro m('x') %}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{% endmacro %}{{ 'a' if m is defined }}"})
    EXPECT_THROW(written(source), NotUnderstood) << source;
}

// Each calls the one before it more than once, in defaults that decide nothing.
TEST(Jinja, GivesUpMacrosThatTakeTooLong) {
  std::string source = "{% macro m0() %}{% endmacro %}";
  for (int i = 1; i < 60; ++i) {
    const std::string call = "(m" + std::to_string(i - 1) + "() if false)";
    source +=
        "{% macro m" + std::to_string(i) + "(x=" + call + ", y=" + call + ") %}{% endmacro %}";
  }
  EXPECT_EQ(written(source + "{{ m59() }}a"), "a");
  std::string chain = "{% macro m0() %}{% endmacro %}";
  for (int i = 1; i < 2000; ++i)
    chain +=
        "{% macro m" + std::to_string(i) + "(x=m" + std::to_string(i - 1) + "()) %}{% endmacro %}";
  EXPECT_THROW(written(chain + "{{ m1999() }}"), NotUnderstood);
}

TEST(Jinja, TreatsWhiteSpaceAsTransformersDoes) {
  EXPECT_EQ(written("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(written("a \n {%- if true -%} \n b {{- ' c ' -}} \n {%- endif %} d"), "ab c  d");
  EXPECT_EQ(written("a\n  {{ n }}\nb"), "a\n  3\nb");
  EXPECT_EQ(written("x {% if true %} y{% endif %}"), "x  y");
  EXPECT_EQ(written("{# c #}\nb"), "b");
}

TEST(Jinja, RefusesWhatItDoesNotKnow) {
  for (const char* source : {"{{ f() }}",
                             "{{ n|tojson }}",
                             "{{ n",
                             "{% if true %}",
                             "{% include 'x' %}",
                             "{{ n n }}",
                             "{{ 'a }}",
                             "{{ messages }}",
                             "{{ [1 }}",
                             "{% for a, b in [1] %}{% endfor %}",
                             "{{ raise_exception('no') }}",
                             "{% set x %}a{% endset %}",
                             "{{ n is even }}",
                             "{{ 1.5 }}x",
                             "{{ n // 2 }}",
                             "{{ 'a'.upper() }}",
                             "{{ {'a': 1} }}",
                             "{{ strftime_now('%H:%M') }}",
                             "{{ strftime_now('%') }}",
                             "{{ strftime_now() ~ strftime_now(1) }}",
                             "{{ 'a'.replace('', 'b') }}",
                             "{{ 'a'.replace('a') }}"}) {
    EXPECT_THROW(written(source), NotUnderstood) << source;
  }
  EXPECT_THROW(value(std::string(5000, '(') + "1" + std::string(5000, ')')), NotUnderstood);
  EXPECT_THROW(value(std::string(5000, '-') + "1"), NotUnderstood);
  EXPECT_THROW(value(std::string(40, '(') + "f()" + std::string(40, ')')), NotUnderstood);
  std::string nested;
  for (int i = 0; i < 500; ++i) nested += "{% if true %}";
  EXPECT_THROW(written(nested), NotUnderstood);
  std::string loops = "{% set x = 'a' %}";
  for (int i = 0; i < 20; ++i) loops += "{% for y in [1,2,3,4] %}";
  EXPECT_THROW(written(loops + "a" + std::string("{% endfor %}")), NotUnderstood);
  std::string doubled = "{% set ns = namespace(a='aaaaaaaa') %}";
  for (int i = 0; i < 40; ++i) doubled += "{% set ns.a = ns.a ~ ns.a %}";
  EXPECT_THROW(written(doubled), NotUnderstood);
  for (const char* grown :
       {"ns.a + ns.a", "[ns.a, ns.a]", "[ns.a, 'a']", "namespace(a=ns.a, b=ns.a)"}) {
    std::string longer = "{% set ns = namespace(a=[1]) %}";
    for (int i = 0; i < 100; ++i) longer += "{% set ns.a = " + std::string(grown) + " %}";
    EXPECT_THROW(written(longer), NotUnderstood) << grown;
  }
}

TEST(Jinja, EndsOnAnythingAtAll) {
  const std::string seed =
      "{%- if tools %}{{ '<|a|>' + m['role'] }}{% elif n == 3 %}x{# c #}{% endif %}\n"
      "{% for m in messages[0:] -%} {{ m.content | trim ~ loop.index }}{%- endfor %}"
      "{% set ns = namespace(a=[1, 'b'], c=none) %}{{ 'x' if ns.c is not none else \"y\" }}";
  std::mt19937 random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string source = seed;
    for (unsigned n = 1 + random() % 6; n > 0; --n) {
      const std::size_t at = random() % source.size();
      const std::size_t length = random() % 12;
      if (random() % 2 == 0) {
        source.erase(at, length);
      } else {
        source.insert(at, seed.substr(random() % seed.size(), length));
      }
      if (source.empty()) source = "{";
    }
    try {
      written(source);
    } catch (const NotUnderstood&) {
    }
  }
}

}  // namespace
}  // namespace starattn::jinja
