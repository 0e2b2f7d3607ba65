// SPDX-License-Identifier: Apache-2.0
#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/json_text.h"
#include "matching.h"

namespace starattn {
namespace {

using testing::matches;
using testing::new_expressions;

struct Case {
  const char* schema;
  std::vector<const char*> good, bad;
};

void check(const Case& c) {
  SCOPED_TRACE(c.schema);
  Expressions in = new_expressions();
  const Expression e = parse_json_schema(in, c.schema, "--schema");
  for (const char* text : c.good) {
    EXPECT_TRUE(matches(in, e, text)) << text;
    EXPECT_TRUE(Json::accept(text)) << text;
  }
  for (const char* text : c.bad) EXPECT_FALSE(matches(in, e, text)) << text;
}

TEST(JsonSchema, Types) {
  check({R"({"type": "boolean"})", {"true", "false"}, {"null", "\"true\"", "True", " true"}});
  check({R"({"type": ["integer", "null"]})", {"0", "-17", "null"}, {"1.5", "01", "-0x", ""}});
  check({R"({"type": "number"})",
         {"0", "-1.5", "2e9", "3.25E-7"},
         {".5", "1.", "+1", "NaN", "1e", "01.5", "1e999"}});
  check({R"({"type": "string"})",
         {R"("")", R"("a b é 😀")", R"("\"\\\/\n\u00e9")"},
         {R"(")", R"("\x")", "\"\n\"", R"("\ud800")", "\"\xff\"", "\"\xc3\""}});
  check({R"({})", {"1", R"({"a": [null, {"b": "c"}]})", "[[[]]]"}, {"{", "[1,]", R"({"a":})"}});
}

TEST(JsonSchema, Strings) {
  check({R"({"type": "string", "minLength": 2, "maxLength": 3})",
         {R"("ab")", R"("é😀\n")", R"("\u0041bc")"},
         {R"("a")", R"("abcd")", R"("é")"}});
  check({R"({"pattern": "^[a-z]{2}\\d*$"})", {R"("ab12")"}, {R"("a1")", R"("xab")", R"("ab1x")"}});
  check({R"({"type": "string", "pattern": "b"})", {R"("abc")", R"("\"b")"}, {R"("ac")"}});
  check({R"({"type": "string", "format": "date"})",
         {R"("2024-02-29")", R"("1999-12-31")", R"("2000-02-29")"},
         {R"("2023-02-29")", R"("1900-02-29")", R"("2024-04-31")", R"("2024-13-01")",
          R"("24-1-1")"}});
  check({R"({"format": "date-time"})",
         {R"("2024-01-31T23:59:59.5+01:00")", R"("2024-01-31T00:00:00Z")"},
         {R"("2024-01-31 00:00:00Z")", R"("2024-01-31T24:00:00Z")"}});
  check({R"({"format": "ipv4"})", {R"("10.0.255.1")"}, {R"("256.0.0.1")", R"("1.2.3")"}});
  check({R"({"format": "uuid"})", {R"("123e4567-e89b-12d3-a456-426614174000")"}, {R"("123")"}});
  check({R"({"format": "email"})", {R"("a.b@c.org")"}, {R"("a@b")", R"("@c.org")"}});
}

TEST(JsonSchema, EnumAndConst) {
  check({R"({"enum": ["red", "green", 1, null, {"a": [1]}]})",
         {R"("red")", "1", "null", R"({"a":[1]})"},
         {R"("re")", "2", R"("green ")"}});
  check({R"({"type": "string", "enum": ["a", 1]})", {R"("a")"}, {"1"}});
  check({R"({"const": "\"é\n"})", {R"("\"é\n")"}, {R"("é")"}});
}

TEST(JsonSchema, Arrays) {
  check({R"({"type": "array", "items": {"type": "integer"}})",
         {"[]", "[1]", "[1,2, 3]", "[\n  1,\n  2\n]"},
         {"[1 ,2]", "[1,,2]", "[\"a\"]", "[1", "[1,]"}});
  check({R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3})",
         {"[1,2]", "[1,2,3]"},
         {"[]", "[1]", "[1,2,3,4]"}});
  check(
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false, "minItems": 2})",
       {R"([1,"a"])"},
       {"[]", "[1]", R"([1,"a",2])", R"(["a",1])"}});
  check({R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": {"type": "null"}})",
         {"[]", "[1]", R"([1,"a"])", R"([1,"a",null,null])"},
         {"[null]", R"([1,null])"}});
  check({R"({"type": "array", "items": {"type": "null"}, "maxItems": 0})", {"[]"}, {"[null]"}});
  check({R"({"type": "array", "maxItems": 1, "prefixItems": [{"type": "null"}, {"type": "null"}]})",
         {"[]", "[null]"},
         {"[null,null]"}});
}

TEST(JsonSchema, Objects) {
  check({R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"},
             "c": {"type": "boolean"}}, "required": ["b"]})",
         {R"({"b":null})", R"({"a":1,"b": null})", R"({"b":null,"c":true})",
          "{\n  \"a\": 1,\n  \"b\": null,\n  \"c\": false\n}"},
         {"{}", R"({"a":1})", R"({"b":null,"a":1})", R"({"b":null,"x":1})", R"({"b":null,})",
          R"({"a":1"b":null})"}});
  check({R"({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})",
         {"{}", R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"},
         {R"({"b":1,"a":2})", R"({,"a":1})"}});
  check({R"({"type": "object", "additionalProperties": {"type": "integer"}})",
         {"{}", R"({"x":1,"y z":2})"},
         {R"({"x":"a"})", R"({"x"})"}});
  check({R"({"type": "object", "properties": {"ab": {"type": "string"}, "a": {"type": "null"}},
             "additionalProperties": {"type": "integer"}})",
         {R"({"ab":"x","a":null,"abc":1,"b":2,"":3})", R"({"aa":1})"},
         {R"({"ab":1})", R"({"a":1})", R"({"abc":"x"})"}});
  check({R"({"type": "object"})", {"{}", R"({"a": {"b": []}})"}, {"[]", "1"}});
  check({R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"a":1})"}});
}

TEST(JsonSchema, AlternativesAndReferences) {
  check({R"({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "x"})",
         {R"("a")", "null"},
         {"1"}});
  check({R"({"$defs": {"n": {"type": "integer", "minimum": 3}}, "type": "array",
             "items": {"$ref": "#/$defs/n"}})",
         {"[3,14]"},
         {"[2]"}});
  check(
      {R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}},
                        "required": ["kind", "x"]},
                       {"$ref": "#/$defs/b"}],
             "$defs": {"b": {"type": "object", "properties": {"kind": {"enum": ["b", "c"]}},
                             "required": ["kind"]}}})",
       {R"({"kind":"a","x":1})", R"({"kind":"c"})"},
       {R"({"kind":"a"})", R"({"kind":"d"})"}});
  check({R"({"allOf": [{"$ref": "#/definitions/x~1y"}], "definitions": {"x/y": {"const": 1}}})",
         {"1"},
         {"2"}});
  check({R"({"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}},
             "required": ["v"]})",
         {R"({"v":1})", R"({"v":1,"next":{"v":2,"next":{"v":3}}})"},
         {R"({"next":{"v":1}})"}});
}

TEST(JsonSchema, RecursionHasABottom) {
  Expressions in = new_expressions();
  const Expression e =
      parse_json_schema(in, R"({"type": "array", "items": {"$ref": "#"}})", "--schema");
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_TRUE(matches(in, e, nested(20)));
  EXPECT_FALSE(matches(in, e, nested(40)));
}

TEST(JsonSchema, WhatIsNotSupportedIsNamedWithItsPlace) {
  const std::vector<std::pair<const char*, std::vector<const char*>>> cases = {
      {R"({"type": "object", "properties": {"a/b": {"multipleOf": 3}}})",
       {"'#/properties/a~1b'", "'multipleOf' is not supported"}},
      {R"({"type": "string", "minimum": 3})", {"'minimum' says nothing about type string"}},
      {R"({"type": "sting"})", {"'#/type'", "got \"sting\""}},
      {R"({"not": {}})", {"'not' is not supported"}},
      {R"({"anyOf": [{}], "type": "object"})", {"'type' beside 'anyOf'"}},
      {R"({"anyOf": []})", {"at least one schema"}},
      {R"({"allOf": [{}, {}]})", {"write what they say together"}},
      {R"({"oneOf": [{"const": 1}, {"enum": [2, 1.0]}]})", {"0 and 1 could both match"}},
      {R"({"oneOf": [{"const": {"a": 1, "b": 2}}, {"const": {"b": 2, "a": 1}}]})",
       {"0 and 1 could both match"}},
      {R"({"enum": [{"a": [12345678901234567890123]}]})", {"#/enum", "beyond 64 bits"}},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", {"0 and 1 could both match"}},
      {R"({"$ref": "#/$defs/missing"})", {"'#/$ref'", "there is no '#/$defs/missing'"}},
      {R"({"$ref": "http://x.org/y"})", {"a place in this schema"}},
      {R"({"$ref": "#"})", {"without end"}},
      {R"({"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]})",
       {"without end"}},
      {R"({"type": "object", "required": ["x"], "properties": {}})", {"'x' is not among"}},
      {R"x({"type": "string", "pattern": "a(?=b)"})x", {"'#/pattern'", "looking ahead"}},
      {R"({"type": "string", "pattern": "a", "maxLength": 3})", {"only one of"}},
      {R"({"type": "string", "format": "iri"})", {"got 'iri'"}},
      {R"({"type": "string", "minLength": 5, "maxLength": 3})", {"'minLength' is more than"}},
      {R"({"type": "string", "minLength": -1})", {"'#/minLength'", "whole number"}},
      {R"({"type": "string", "minLength": 1e12})", {"no answer is so long"}},
      {R"({"type": "integer", "minimum": 0.2, "maximum": 0.8})", {"within these bounds"}},
      {R"({"type": "integer", "exclusiveMinimum": true})", {"expected a number, got boolean"}},
      {R"({"type": "array", "uniqueItems": true})", {"'#/uniqueItems'"}},
      {R"({"enum": []})", {"at least one value"}},
      {R"({"type": "string", "enum": [1]})", {"no value is of type string"}},
      {R"({"type": "object", "patternProperties": {}})", {"'patternProperties' is not supported"}},
      {R"(false)", {"got false"}},
      {R"([1])", {"got array"}},
      {R"({"type": )", {"--schema"}},
  };
  for (const auto& [schema, parts] : cases) {
    Expressions in = new_expressions();
    try {
      parse_json_schema(in, schema, "--schema");
      ADD_FAILURE() << schema;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
      EXPECT_TRUE(std::string(error.what()).starts_with("--schema")) << error.what();
      for (const char* part : parts)
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

// Bounds of billions, thousands of members, deep nesting: read or refused, in little memory.
TEST(JsonSchema, LargeSchemas) {
  Expressions in = new_expressions();
  const Expression e = parse_json_schema(
      in,
      R"({"type": "array", "maxItems": 3000000000, "items": {"type": "string", "maxLength": 4e12}})",
      "--schema");
  EXPECT_TRUE(matches(in, e, R"(["a", "b"])"));
  EXPECT_LT(in.n_parts(), 1000u);

  const auto object_of = [](int n, bool is_required) {
    Json schema = {{"type", "object"}, {"required", Json::array()}};
    for (int i = 0; i < n; ++i) {
      schema["properties"]["p" + std::to_string(i)] = {{"type", "integer"}};
      if (is_required) schema["required"].push_back("p" + std::to_string(i));
    }
    return schema.dump();
  };
  Expressions many = new_expressions();
  const Expression all = parse_json_schema(many, object_of(2000, true), "--schema");
  EXPECT_FALSE(matches(many, all, R"({"p0":1})"));
  Expressions optional = new_expressions();
  const Expression some = parse_json_schema(optional, object_of(300, false), "--schema");
  EXPECT_TRUE(matches(optional, some, R"({"p7":1,"p299":2})"));
  Expressions too_many = new_expressions();
  EXPECT_THROW(parse_json_schema(too_many, object_of(20'000, false), "--schema"), Error);
  std::string deep = "{}";
  for (int i = 0; i < 100; ++i) deep = R"({"items":)" + deep + "}";
  EXPECT_THROW(parse_json_schema(in, deep, "--schema"), Error);
}

TEST(JsonSchema, AnyObjectIsAnObject) {
  Expressions in = new_expressions();
  const Expression e = any_json_object(in);
  EXPECT_TRUE(matches(in, e, R"({"a": [1, {"b": "c\n"}], "d": -1.5e3})"));
  for (const char* text : {"[]", "1", "{", R"({"a" : 1})"})
    EXPECT_FALSE(matches(in, e, text)) << text;
}

}  // namespace
}  // namespace starattn
