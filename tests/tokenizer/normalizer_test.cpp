// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include "model_folder.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

std::string apply(const char* normalizer, const std::string& text) {
  const Json json = Json::parse(std::string(R"({"normalizer": )") + normalizer + "}");
  return Normalizer(JsonObject(json, "test"))(text);
}

// From the Unicode Standard, annex 15.
TEST(Normalize, GivesTheFourForms) {
  const std::string text = "\xe1\xba\x9b\xcc\xa3";  // U+1E9B U+0323
  EXPECT_EQ(normalize(text, NormalForm::nfc), "\xe1\xba\x9b\xcc\xa3");
  EXPECT_EQ(normalize(text, NormalForm::nfd), "\xc5\xbf\xcc\xa3\xcc\x87");
  EXPECT_EQ(normalize(text, NormalForm::nfkc), "\xe1\xb9\xa9");
  EXPECT_EQ(normalize(text, NormalForm::nfkd), "s\xcc\xa3\xcc\x87");
}

TEST(Normalize, KeepsCompositionExclusions) {
  EXPECT_EQ(normalize("\xe0\xa5\x98", NormalForm::nfc), "\xe0\xa4\x95\xe0\xa4\xbc");  // U+0958
  EXPECT_EQ(normalize("\xe2\x84\xab", NormalForm::nfc), "\xc3\x85");  // the Angstrom sign
  EXPECT_EQ(normalize("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", NormalForm::nfc),
            "\xea\xb0\x81");  // Hangul
}

// The `tokenizers` library has the tables of Unicode 9, whatever utf8proc knows.
TEST(Normalize, LeavesCharactersThatCameAfterUnicode9) {
  for (const char* text : {"\xe0\xba\xb9\xe0\xba\xba", "\xea\x9f\xb2",
                           "\xe3\x8b\xbf",                         // U+0EB9 U+0EBA, U+A7F2, U+32FF
                           "\xf0\x91\xa4\xb5\xf0\x91\xa4\xb0"}) {  // U+11935 U+11930
    for (const NormalForm form :
         {NormalForm::nfc, NormalForm::nfd, NormalForm::nfkc, NormalForm::nfkd})
      EXPECT_EQ(normalize(text, form), text);
  }
}

// U+11A7 stands one before the first trailing consonant and is none. Expected: Python's
// unicodedata.normalize("NFC").
TEST(Normalize, KeepsWhatIsNoTrailingConsonant) {
  const std::string ga = "\xea\xb0\x80", gag = "\xea\xb0\x81";      // U+AC00, U+AC01
  const std::string parts = "\xe1\x84\x80\xe1\x85\xa1";             // U+1100 U+1161
  const std::string before = "\xe1\x86\xa7";                        // U+11A7
  const std::string first = "\xe1\x86\xa8", last = "\xe1\x87\x82";  // U+11A8, U+11C2
  const std::string behind = "\xe1\x87\x83";                        // U+11C3
  const std::string acute = "\xcc\x81", e_acute = "\xc3\xa9";
  const std::pair<std::string, std::string> cases[] = {
      {ga + before, ga + before},
      {parts + before, ga + before},
      {ga + before + first, ga + before + first},
      {before + parts + first, before + gag},
      {gag + before, gag + before},
      {before + before, before + before},
      {ga + before + acute, ga + before + acute},
      {"e" + before + acute, "e" + before + acute},
      {"e" + acute + before + "e" + acute, e_acute + before + e_acute},
      {ga + last, "\xea\xb0\x9b"},
      {ga + behind, ga + behind}};
  for (const auto& [text, expected] : cases) EXPECT_EQ(normalize(text, NormalForm::nfc), expected);
  EXPECT_EQ(normalize(parts + before, NormalForm::nfkc), ga + before);
}

TEST(Normalize, OrdersAMillionMarksInTime) {
  std::string marks = "a";
  std::string above;
  std::string below;
  for (int i = 0; i < 500'000; ++i) {
    marks += "\xcc\x95\xcc\x96";  // U+0315 (class 232), U+0316 (class 220)
    above += "\xcc\x95";
    below += "\xcc\x96";
  }
  EXPECT_TRUE(normalize(marks, NormalForm::nfd) == "a" + below + above);
}

TEST(Normalizer, DoesNothingWhereNoneIsGiven) {
  EXPECT_EQ(apply("null", "e\xcc\x81 x"), "e\xcc\x81 x");
}

TEST(Normalizer, PrependsAndReplaces) {
  const char* llama2 = R"({"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "_"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})";
  EXPECT_EQ(apply(llama2, " a  b"), "__a__b");
  EXPECT_EQ(apply(llama2, ""), "");
  EXPECT_EQ(apply(R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "x"})", "baab"),
            "bxb");
}

TEST(Normalizer, RefusesOthersByName) {
  try {
    apply(R"({"type": "Precompiled", "precompiled_charsmap": "AA=="})", "a");
    FAIL();
  } catch (const UnsupportedTokenizer& error) {
    EXPECT_NE(std::string(error.what()).find("normalizer 'Precompiled' is not supported"),
              std::string::npos);
  }
}

TEST(Normalizer, DoesNotBlowUp) {
  Json steps = Json::array();
  const std::string by(4096, 'a');
  for (int i = 0; i < 4; ++i) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", by}});
  }
  const Json json = {{"normalizer", {{"type", "Sequence"}, {"normalizers", steps}}}};
  const std::string message =
      failure_of([&] { Normalizer(JsonObject(json, "test"))(std::string(64, 'a')); });
  EXPECT_NE(message.find("makes more than"), std::string::npos) << message;
}

}  // namespace
}  // namespace starattn
