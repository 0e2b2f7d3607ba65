// SPDX-License-Identifier: Apache-2.0
// starattn merge: the outputs of a job array as one, in the order of the input. Each part is in
// that order already, so its next line is looked at and no more; nothing is written but the whole.
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "command/commands.h"
#include "io/answer_writer.h"
#include "io/completion.h"
#include "io/document.h"
#include "io/line_digest.h"
#include "io/line_reader.h"
#include "io/request.h"

#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

namespace starattn {
namespace {

struct MergeOptions {
  std::string input;
  std::string output;
  std::vector<std::string> parts;
  std::string question_marker;
  bool overwrite = false;
};

// Beside the file itself, where a link to it is named.
std::string settings_path(const std::string& output) {
  return real_path(output) + ".settings.json";
}
std::string journal_path(const std::string& output) {
  return real_path(output) + ".journal";
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

// A file that no run writes; none begins to while this is held.
FileDescriptor hold(const std::string& path, Exit exit, std::string_view what_to_do) {
  FileDescriptor file = open_to_read(path);
  if (::flock(file.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    fail(exit, "{} is being written by a run{}", path, what_to_do);
  return file;
}

// One output of the array, line by line.
class Part {
 public:
  Part(const std::string& path, bool is_of_requests)
      : path_(path),
        is_of_requests_(is_of_requests),
        held_(hold(path, Exit::bad_data, ", so it is not complete: wait for it")),
        lines_(path, {}, TextSource::Kind::as_it_is) {
    if (exists(journal_path(path)))
      fail(Exit::bad_data,
           "{}: not complete: {} is there, which a finished run removes. Run its command again "
           "first",
           path, journal_path(path));
    settings_ = read_json_file(settings_path(path));
    next();
  }

  const std::string& path() const { return path_; }
  const Json& settings() const { return settings_; }
  bool is_at_end() const { return !line_; }
  std::string where() const { return fmt::format("{}:{}", path_, line_->number); }

  bool is_answer(const std::string& id, const std::string& query_id) const {
    return line_ && !key_.is_error && key_.id == id && key_.query_id == query_id;
  }
  // The error line of a document, or of a request.
  bool is_error(std::int64_t input_line, const std::string& id) const {
    if (!line_ || !key_.is_error) return false;
    return is_of_requests_ ? key_.id == id : error_line_ == input_line;
  }
  // "document 'a', query 'q'", for a message.
  std::string what() const {
    if (key_.is_error) return fmt::format("an error about '{}'", key_.id);
    if (is_of_requests_) return fmt::format("request '{}'", key_.id);
    return fmt::format("document '{}', query '{}'", key_.id, key_.query_id);
  }
  std::string take() {
    std::string text = std::move(line_->text);
    next();
    return text;
  }

 private:
  void next() {
    line_ = lines_.next();
    if (!line_) return;
    if (!line_->is_ended)
      fail(Exit::bad_data, "{}: a line without its end: run the command of this part again",
           where());
    const Json json = parse_json(line_->text, where());
    key_ = is_of_requests_ ? key_of_completion(json, where()) : key_of_output_line(json, where());
    const JsonObject object(json, where());
    if (key_.is_error && is_of_requests_) key_.id = object.find_string("custom_id").value_or("");
    if (key_.is_error && !is_of_requests_) error_line_ = object.get_int("line", 1, INT64_MAX);
    if (!key_.is_error && check_digest(line_->text) == LineDigest::wrong)
      fail(Exit::bad_data,
           "{}: the line was changed since it was written (its digest is another). Run the command "
           "of this part again, which answers it anew",
           where());
  }

  std::string path_;
  bool is_of_requests_;
  FileDescriptor held_;
  LineReader lines_;
  Json settings_;
  std::optional<Line> line_;  // the next
  AnswerKey key_;             // its
  std::int64_t error_line_ = 0;
};

class Merge {
 public:
  explicit Merge(const MergeOptions& options)
      : options_(options), is_of_requests_(is_request_file(options.input)) {
    for (const std::string& path : options.parts)
      parts_.push_back(std::make_unique<Part>(path, is_of_requests_));
    for (const auto& part : parts_) {
      if (part->settings() == parts_[0]->settings()) continue;
      fail(Exit::bad_data,
           "{}: its settings differ from those of {}: {}. Answers are joined only where they were "
           "made alike",
           part->path(), parts_[0]->path(), difference(*part, *parts_[0]));
    }
  }

  void run() {
    const bool is_there = exists(options_.output);
    if (!options_.overwrite && is_there)
      fail(Exit::cannot_create, "{}: is there already; --overwrite replaces it", options_.output);
    FileDescriptor replaced;
    if (is_there) replaced = hold(options_.output, Exit::cannot_create, ": wait for it");
    DurableFile out(options_.output);
    LineReader lines(options_.input);
    while (const std::optional<Line> line = lines.next()) add(*line, out);
    refuse_missing();
    for (const auto& part : parts_) {
      if (part->is_at_end()) continue;
      fail(Exit::bad_data,
           "{}: {} is not the next of the input: not in it, answered in another part, too, or out "
           "of order. Name each part once, and the input that all of them had",
           part->where(), part->what());
    }
    forget_what_was_there();
    out.commit();
    write_file_durably(settings_path(options_.output), parts_[0]->settings().dump(2) + "\n");
    log::info("{} answer(s) and {} error(s) of {} part(s): {}", with_commas(n_answers_),
              with_commas(n_errors_), parts_.size(), options_.output);
  }

 private:
  // Of an output that is replaced: settings and waiting answers. A run that found them beside the
  // new lines would take these for answers that were made so.
  void forget_what_was_there() const {
    ::unlink(settings_path(options_.output).c_str());
    ::unlink(journal_path(options_.output).c_str());
    fsync_directory(parent_directory(real_path(options_.output)));
  }

  static std::string difference(const Part& a, const Part& b) {
    for (const auto& [key, value] : a.settings().items()) {
      const std::string other = b.settings().contains(key) ? b.settings()[key].dump() : "nothing";
      if (other != value.dump()) return fmt::format("{} is {} and {}", key, value.dump(), other);
    }
    return "keys of the other are missing";
  }

  // What a line of input asks for, in order; nothing of a line that is no document.
  std::vector<std::pair<std::string, std::string>> keys_of(const Line& line, std::string& id) {
    const std::string where = fmt::format("{}:{}", options_.input, line.number);
    std::vector<std::pair<std::string, std::string>> keys;
    try {
      const Document document =
          is_of_requests_ ? parse_request(line.text, line.number, where, options_.question_marker)
                          : parse_document(line.text, line.number, where);
      id = document.id;
      for (const Query& query : document.queries)
        keys.emplace_back(is_of_requests_ ? query.id : document.id, query.id);
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_data) throw;
      id = is_of_requests_ ? readable_custom_id(line.text) : "";
    }
    return keys;
  }

  void add(const Line& line, DurableFile& out) {
    std::string id;
    const auto keys = keys_of(line, id);
    for (const auto& [document, query] : keys) {
      Part* part = find([&](const Part& p) { return p.is_answer(document, query); });
      if (!part) return add_error(line, id, out, fmt::format("'{}', query '{}'", document, query));
      out.append(part->take() + "\n");
      ++n_answers_;
    }
    if (keys.empty()) add_error(line, id, out, "no document, which has an error line");
  }

  // In place of all that the line still has to get.
  void add_error(const Line& line, const std::string& id, DurableFile& out,
                 const std::string& missing) {
    Part* part = find([&](const Part& p) { return p.is_error(line.number, id); });
    if (part) {
      out.append(part->take() + "\n");
      ++n_errors_;
      return;
    }
    constexpr std::size_t kMostSaid = 5;
    if (++n_missing_ <= kMostSaid)
      missing_ += fmt::format("\n  {}:{}: {}", options_.input, line.number, missing);
  }

  void refuse_missing() const {
    if (n_missing_ == 0) return;
    std::string next;
    for (const auto& part : parts_)
      if (!part->is_at_end())
        next += fmt::format("\n  next of {}: {}", part->where(), part->what());
    fail(Exit::bad_data,
         "{} line(s) of the input have answers in none of the parts: is a part missing, or not "
         "finished?{}{}",
         with_commas(static_cast<std::int64_t>(n_missing_)), missing_, next);
  }

  template <typename Is>
  Part* find(const Is& is) const {
    for (const auto& part : parts_)
      if (is(*part)) return part.get();
    return nullptr;
  }

  const MergeOptions& options_;
  bool is_of_requests_;
  std::vector<std::unique_ptr<Part>> parts_;
  std::int64_t n_answers_ = 0;
  std::int64_t n_errors_ = 0;
  std::size_t n_missing_ = 0;
  std::string missing_;  // the first of them
};

}  // namespace

Command add_merge(CLI::App& parser) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* app = parser.add_subcommand(
      "merge", "Join the outputs of a job array in the order of the input (no launcher)");
  app->add_option("parts", options->parts, "Outputs of 'run --shard 0/n' to 'n-1/n', in any order")
      ->required();
  app->add_option("--input", options->input, "The documents that all of them were given")
      ->required();
  app->add_option("--output", options->output, "The whole")->required();
  app->add_option("--question-marker", options->question_marker,
                  "As 'run' had it, where the input is an OpenAI batch file");
  app->add_flag("--overwrite", options->overwrite, "Replace an output that is there");
  return {app,
          [options] {
            Merge(*options).run();
            return Exit::ok;
          },
          [] { return false; },
          [options](FilePurposes& files) {
            files.reads("--input", options->input);
            for (std::size_t i = 0; i < options->parts.size(); ++i) {
              files.reads(fmt::format("part {}", i + 1), options->parts[i]);
              files.reads(fmt::format("the settings of part {}", i + 1),
                          settings_path(options->parts[i]));
            }
            files.writes("--output", options->output);
            AnswerWriter::declare(files, "--output", options->output);
          }};
}

}  // namespace starattn
