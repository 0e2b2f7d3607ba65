// SPDX-License-Identifier: Apache-2.0
#include "run/thinking.h"

#include <gtest/gtest.h>

#include "../tokenizer/model_folder.h"

namespace starattn {
namespace {

TEST(Thinking, IsToldApartFromTheAnswer) {
  const Thought own = split_thought(" <think>\nA </think> B\n</think>\n\nThe answer.\n", false);
  EXPECT_EQ(own.reasoning, "A");
  EXPECT_EQ(own.answer, "B\n</think>\n\nThe answer.\n");
  EXPECT_FALSE(own.is_open);
  const Thought opened = split_thought("\nA\n</think>\n\nThe answer.", true);
  EXPECT_EQ(opened.reasoning, "A");
  EXPECT_EQ(opened.answer, "The answer.");
}

TEST(Thinking, WithoutAnEndIsAllThereIs) {
  for (const bool is_inside : {false, true}) {
    const Thought thought = split_thought("<think> A </thin", is_inside);
    EXPECT_EQ(thought.reasoning, "A </thin");
    EXPECT_EQ(thought.answer, "");
    EXPECT_TRUE(thought.is_open);
  }
  EXPECT_TRUE(split_thought("", true).is_open);
}

TEST(Thinking, IsNotThereWhereNothingBeginsIt) {
  for (const char* text :
       {"", " An answer.", "It says <think> A </think>.", "A</think>B", "<thin"}) {
    const Thought thought = split_thought(text, false);
    EXPECT_FALSE(thought.reasoning) << text;
    EXPECT_FALSE(thought.is_open) << text;
    EXPECT_EQ(thought.answer, text);
  }
}

TEST(Thinking, IsOpenedByThePrompt) {
  EXPECT_TRUE(opens_thinking("<|im_start|>assistant\n<think>\n"));
  EXPECT_FALSE(opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
  EXPECT_FALSE(opens_thinking("<|im_start|>assistant\n"));
}

TEST(Thinking, TagsAreSeenWhereTheyAreSpecialTokens) {
  const auto tokenizer = open_tokenizer(byte_tokenizer({"<think>", "</think>", "<end>"}));
  const auto tokens = tokenizer->encode("<think>A</think>B<end>", SpecialTokens::parse);
  EXPECT_EQ(tokenizer->decode(tokens, true), "AB");
  EXPECT_EQ(text_with_tags(*tokenizer, tokens), "<think>A</think>B");
  const auto plain = open_tokenizer(byte_tokenizer({}));
  EXPECT_EQ(text_with_tags(*plain, plain->encode("<think>A</think>B", SpecialTokens::text)),
            "<think>A</think>B");
}

}  // namespace
}  // namespace starattn
