// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/chat_template.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

using Texts = std::vector<std::string>;

TEST(TextsOfTemplate, AreThoseOutsideAndTheLiteralsInside) {
  EXPECT_EQ(texts_of_template(""), Texts{});
  EXPECT_EQ(texts_of_template("a {b} {"), Texts{"a {b} {"});
  EXPECT_EQ(texts_of_template("a{{ x }}b{%- if y == \"z\" -%}c{% endif %}"),
            (Texts{"a", "b", "z", "c"}));
  EXPECT_EQ(texts_of_template("{{ 'it' + \"isn't\" + '' }}"), (Texts{"it", "isn't", ""}));
  EXPECT_EQ(texts_of_template("{{ '}}' }}{{ '%}' }}"), (Texts{"}}", "%}"}));
  EXPECT_EQ(texts_of_template("{# don't #}a{# {{ 'x' }} #}"), Texts{"a"});
}

TEST(TextsOfTemplate, HaveTheirEscapesResolved) {
  EXPECT_EQ(texts_of_template(R"({{ 'a\n\'b\'\t\\boxed' }})"), Texts{"a\n'b'\t\\boxed"});
  EXPECT_EQ(texts_of_template(R"(a\n)"), Texts{R"(a\n)"});
}

TEST(TextsOfTemplate, EndWhereAnUnfinishedTemplateEnds) {
  for (const char* unfinished : {"a{{ 'b", "a{{ 'b'", "a{{ 'b' }", "a{% 'b' %", "a{{ 'b' }}{#"})
    EXPECT_EQ(texts_of_template(unfinished), (Texts{"a", "b"})) << unfinished;
  EXPECT_EQ(texts_of_template(R"({{ 'b\)"), Texts{R"(b\)"});
  for (const char* empty : {"{{", "{%", "{#", "{#}"}) EXPECT_EQ(texts_of_template(empty), Texts{});
}

}  // namespace
}  // namespace starattn
