// SPDX-License-Identifier: Apache-2.0
#include "benchmark/document_maker.h"

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace starattn {

std::string document_id(const TaskInfo& task, std::int64_t length, std::int64_t index) {
  return fmt::format("{}-{}-{}", task.name, length, index);
}

DocumentMaker::DocumentMaker(const TaskInfo& task, std::int64_t length, std::uint64_t seed,
                             const Tokenizer& tokenizer)
    : task_(&task),
      length_(length),
      seed_(seed),
      tokenizer_(&tokenizer),
      random_(absorb(absorb(mix(seed), task.name), static_cast<std::uint64_t>(length))) {}

DocumentMaker::DocumentMaker(const TaskInfo& task, std::int64_t length, std::uint64_t seed,
                             const Tokenizer& tokenizer, const Materials& materials)
    : DocumentMaker(task, length, seed, tokenizer) {
  choose_maker(materials);
  const auto count = [this](const Sample& sample) { return n_tokens(sample); };
  try {
    guess_ = calibrate(maker_, random_.stream("calibration"), length_, count);
  } catch (const Error& error) {
    throw error.within(std::string(task.name));
  }
}

void DocumentMaker::require_length(const TaskInfo& task, std::int64_t length, std::uint64_t seed,
                                   const Tokenizer& tokenizer, const Materials& materials) {
  const std::int64_t needed = DocumentMaker(task, length, seed, tokenizer).choose_maker(materials);
  if (needed > length)
    fail(Exit::usage,
         "{}: --length: expected at least {} tokens for this task and tokenizer, got {}", task.name,
         with_commas(needed), with_commas(length));
}

std::int64_t DocumentMaker::choose_maker(const Materials& materials) {
  std::int64_t least = 0;
  for (SampleMaker& maker : sample_makers(*task_, length_, materials)) {
    maker_ = std::move(maker);
    least = n_tokens(maker_.make(random_.stream("calibration"), 0, maker_.min_units));
    if (least <= length_ - length_ / 32) break;  // others may be longer than this one
  }
  return least;
}

std::int64_t DocumentMaker::n_tokens(const Sample& sample) const {
  const auto encoded = [&](const std::string& text) {
    return static_cast<std::int64_t>(tokenizer_->encode(text, SpecialTokens::text).size());
  };
  return static_cast<std::int64_t>(tokenizer_->prefix().size()) + encoded(sample.context) +
         encoded(sample.question + sample.answer_prefix) + task_->max_new_tokens;
}

Fitted DocumentMaker::sample(std::int64_t index) const {
  const auto count = [this](const Sample& sample) { return n_tokens(sample); };
  try {
    return fit(maker_, random_.stream(static_cast<std::uint64_t>(index)), index, length_, guess_,
               count);
  } catch (const Error& error) {
    throw error.within(fmt::format("{}, sample {}", task_->name, index));
  }
}

std::string DocumentMaker::line(std::int64_t index, RecordFormat format) const {
  const Fitted fitted = sample(index);
  return format == RecordFormat::published ? published_line(fitted, index)
                                           : our_line(fitted, index);
}

std::string DocumentMaker::our_line(const Fitted& fitted, std::int64_t index) const {
  const Sample& sample = fitted.sample;
  Json query;
  query["id"] = "0";
  query["text"] = sample.question + sample.answer_prefix;
  query["answers"] = sample.answers;
  query["max_new_tokens"] = task_->max_new_tokens;
  query["meta"] = {{"question", sample.question}, {"answer_prefix", sample.answer_prefix}};
  Json json;
  json["id"] = document_id(*task_, length_, index);
  json["context"] = sample.context;
  json["queries"] = Json::array({std::move(query)});
  json["meta"] = {{"task", task_->name}, {"length", length_},           {"index", index},
                  {"seed", seed_},       {"n_tokens", fitted.n_tokens}, {"text", maker_.text}};
  return to_line(json);
}

std::string DocumentMaker::published_line(const Fitted& fitted, std::int64_t index) const {
  Json json;
  json["index"] = index;
  json["input_context"] = fitted.sample.context;
  json["input_query"] = fitted.sample.question + fitted.sample.answer_prefix;
  json["outputs"] = fitted.sample.answers;
  json["length"] = fitted.n_tokens;
  return to_line(json);
}

}  // namespace starattn
