// SPDX-License-Identifier: Apache-2.0
#include "run/input_check.h"

#include "base/text.h"
#include "io/line_reader.h"
#include "io/request.h"
#include "run/request_index.h"
#include "run/seen_ids.h"

namespace starattn {
namespace {

class InputCheck {
 public:
  InputCheck(const InputOptions& options, FunctionRef<void(const Document&)> take,
             FunctionRef<void(const Error&)> refuse)
      : options_(options), take_(take), refuse_(refuse) {
    options.shard_numbers(shard_, n_shards_);
  }

  void documents() {
    LineReader lines(options_.input);
    while (const std::optional<Line> line = lines.next()) {
      if (!is_of_shard(line->index)) continue;
      const std::string where = fmt::format("{}:{}", name_of_input(options_.input), line->number);
      guarded([&] {
        const Document document = parse_document(line->text, line->number, where);
        seen_.add(document, where);
        within(where, document);
      });
    }
  }

  void requests() {
    RequestIndex index(options_.input, options_.question_marker);
    LineReader lines(options_.input);
    while (const std::optional<Line> line = lines.next()) {
      const std::string where = fmt::format("{}:{}", options_.input, line->number);
      guarded([&] {
        const Document request =
            parse_request(line->text, line->number, where, options_.question_marker);
        const std::int64_t context = index.context_of(request);
        if (!is_of_shard(context)) return;
        seen_.add(request, where);
        index.add(context, *line);
      });
    }
    while (const std::optional<Document> document = index.next())
      guarded([&] { within(fmt::format("the context of '{}'", document->id), *document); });
  }

 private:
  bool is_of_shard(std::int64_t number) const { return number % n_shards_ == shard_; }

  void within(const std::string& where, const Document& document) {
    try {
      take_(document);
    } catch (const Error& error) {
      throw error.within(where);
    }
  }
  template <typename Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      if (error.exit() == Exit::io) throw;
      refuse_(error);
    }
  }

  const InputOptions& options_;
  FunctionRef<void(const Document&)> take_;
  FunctionRef<void(const Error&)> refuse_;
  std::int64_t shard_ = 0;
  std::int64_t n_shards_ = 1;
  SeenIds seen_;
};

}  // namespace

void for_each_document(const InputOptions& options, FunctionRef<void(const Document&)> take,
                       FunctionRef<void(const Error&)> refuse) {
  InputCheck check(options, take, refuse);
  is_request_file(options.input) ? check.requests() : check.documents();
}

std::string InputCounts::text() const {
  std::string text = fmt::format("{} document(s) with {} queries; {} tokens of context, {} at most",
                                 with_commas(n_documents), with_commas(n_queries),
                                 with_commas(n_tokens), with_commas(most_tokens));
  if (n_bad > 0) text += fmt::format("; {} cannot be answered", with_commas(n_bad));
  return text;
}

}  // namespace starattn
