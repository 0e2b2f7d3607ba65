// SPDX-License-Identifier: Apache-2.0
#include "io/answer_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "io/line_reader.h"

namespace starattn {
namespace {

constexpr int kLockSeconds = 10;

FileDescriptor open_to_write(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file.valid()) fail(Exit::cannot_create, "cannot create {}: {}", path, std::strerror(errno));
  return file;
}

void sync(const FileDescriptor& file, const std::string& path) {
  // A failed fsync may have dropped the data: trying again would only hide that.
  if (::fdatasync(file.get()) != 0)
    fail(Exit::io, "fdatasync of {} failed: {}", path, std::strerror(errno));
}

// Cuts the file behind its first n bytes and goes on writing there.
void cut(const FileDescriptor& file, std::uint64_t n_bytes, const std::string& path) {
  if (::ftruncate(file.get(), static_cast<off_t>(n_bytes)) != 0 ||
      ::lseek(file.get(), static_cast<off_t>(n_bytes), SEEK_SET) < 0) {
    fail(Exit::io, "cannot cut {} to {} bytes: {}", path, n_bytes, std::strerror(errno));
  }
  sync(file, path);
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

std::uint64_t file_bytes(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

struct Recovered {
  std::string id;
  std::string query_id;
  bool is_error = false;
};

// False when the line is not one of ours: torn, or not written by us.
bool read_line(const std::string& text, Recovered& line) {
  try {
    const Json json = parse_json(text, "output line", {std::size_t{1} << 30, 16});
    if (!json.is_object() || !json.contains("id") || !json["id"].is_string()) return false;
    line.id = json["id"].get<std::string>();
    line.is_error = json.contains("error");
    if (line.is_error) return true;
    if (!json.contains("query_id") || !json["query_id"].is_string()) return false;
    line.query_id = json["query_id"].get<std::string>();
    return true;
  } catch (const Error&) {
    return false;
  }
}

// A setting of answers that were made before it was written down.
Json setting_of(const Json& old, const std::string& key) {
  if (old.contains(key)) return old[key];
  return key == "query_prefix" ? Json("") : Json();
}

std::string quoted_for_a_shell(const std::string& text) {
  std::string quoted = "$'";
  for (const char c : to_line(Json(text))) quoted += c == '\'' ? "\\'" : std::string(1, c);
  quoted.erase(2, 1).back() = '\'';
  return text.empty() ? "''" : quoted;
}

std::string how_to_continue(const std::string& key, const Json& was) {
  if (key != "query_prefix") return "Use the same settings";
  if (was == kDefaultQueryPrefix) return "Leave --query-prefix out";
  return "Pass --query-prefix " + quoted_for_a_shell(was.is_string() ? was.get<std::string>() : "");
}

}  // namespace

AnswerWriter::AnswerWriter(const std::string& path, const Json& settings, bool overwrite)
    : path_(path) {
  lock();
  check_settings(settings, overwrite);
  output_ = open_to_write(path_);
  journal_ = open_to_write(path_ + ".journal");
  fsync_directory(parent_directory(path_));
  recover();
}

void AnswerWriter::lock() {
  const std::string path = path_ + ".lock";
  lock_ = open_to_write(path);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(kLockSeconds);
  while (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      fail(Exit::cannot_create, "cannot lock {}: {}", path, std::strerror(errno));
    }
    if (std::chrono::steady_clock::now() > give_up) {
      fail(Exit::cannot_create, "{} is being written by another run (lock {} held for {} s)", path_,
           path, kLockSeconds);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

void AnswerWriter::check_settings(const Json& settings, bool overwrite) {
  const bool has_answers = file_bytes(path_) > 0 || file_bytes(path_ + ".journal") > 0;
  if (has_answers) {
    const std::string difference = difference_from(settings);
    if (difference.empty()) return;
    if (!overwrite) fail(Exit::usage, "{}", difference);
    for (const std::string& file : {path_, path_ + ".journal"}) {
      if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
        fail(Exit::cannot_create, "cannot replace {}: {}", file, std::strerror(errno));
      }
    }
  }
  write_file_durably(settings_path(), settings.dump(2) + "\n");
}

// Why answers with these settings cannot be put beside those that are there; empty when they can.
std::string AnswerWriter::difference_from(const Json& settings) const {
  if (!exists(settings_path())) {
    return fmt::format(
        "{} exists and was not written by starattn ({} is missing). Choose another --output, or "
        "pass --overwrite to replace it",
        path_, settings_path());
  }
  Json old;
  try {
    old = read_json_file(settings_path());
  } catch (const Error& error) {
    return fmt::format("{}; choose another --output, or pass --overwrite to replace {}",
                       error.what(), path_);
  }
  for (const auto& [key, value] : settings.items()) {
    const Json was = setting_of(old, key);
    if (was == value) continue;
    return fmt::format(
        "{} was made with {} = {}, now it is {}. {} to continue it, another --output, or "
        "--overwrite to replace it",
        path_, key, was.is_null() ? "unset" : to_line(was), to_line(value),
        how_to_continue(key, was));
  }
  return "";
}

// The longest prefix of good answer lines stays. Behind a bad or error line, good lines go back to
// the journal (synced before the output is cut), so that input order holds again when they return.
void AnswerWriter::recover() {
  recover_journal();
  cut(journal_, journal_bytes_, path_ + ".journal");
  const std::uint64_t output_end = recover_output();
  sync(journal_, path_ + ".journal");
  cut(output_, output_end, path_);
}

std::uint64_t AnswerWriter::recover_output() {
  std::uint64_t good_end = 0;
  bool in_prefix = true;
  LineReader lines(path_);
  while (const std::optional<Line> text = lines.next()) {
    if (!text->is_ended) break;  // torn
    Recovered line;
    const bool good = read_line(text->text, line) && !line.is_error;
    in_prefix = in_prefix && good;
    if (in_prefix) {
      good_end = text->end;
      in_output_.insert(key_of(line.id, line.query_id));
    } else if (good && !is_answered(line.id, line.query_id)) {
      append_journal(key_of(line.id, line.query_id), text->text);
    }
  }
  return good_end;
}

void AnswerWriter::recover_journal() {
  LineReader lines(path_ + ".journal");
  while (const std::optional<Line> text = lines.next()) {
    Recovered line;
    if (!text->is_ended || !read_line(text->text, line)) break;
    in_journal_[key_of(line.id, line.query_id)] = {text->begin, text->text.size()};
    journal_bytes_ = text->end;
  }
}

AnswerWriter::Hash128 AnswerWriter::key_of(const std::string& id, const std::string& query_id) {
  const std::string text = fmt::format("{}:{}{}", id.size(), id, query_id);
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {hash.low64, hash.high64};
}

bool AnswerWriter::is_answered(const std::string& id, const std::string& query_id) const {
  const Hash128 key = key_of(id, query_id);
  return in_output_.contains(key) || in_journal_.contains(key);
}

bool AnswerWriter::is_repeated(const std::string& id, const std::string& query_id) {
  return !seen_.insert(key_of(id, query_id)).second;
}

void AnswerWriter::expect(const std::string& id, const std::string& query_id,
                          std::int64_t input_line) {
  const Hash128 key = key_of(id, query_id);
  const bool skip = in_output_.contains(key);
  pending_.push_back({key, input_line, "", skip || in_journal_.contains(key), skip});
  flush();
}

void AnswerWriter::expect_error(const std::string& line) {
  ++n_errors_;
  pending_.push_back({{}, 0, line, true, false});
  flush();
}

void AnswerWriter::put(const std::string& id, const std::string& query_id,
                       const std::string& line) {
  const Hash128 key = key_of(id, query_id);
  if (!pending_.empty() && pending_.front().key == key) {
    pending_.front().text = line;
  } else {
    append_journal(key, line);
    sync(journal_, path_ + ".journal");
  }
  for (Pending& pending : pending_) {
    if (pending.key == key) pending.ready = true;
  }
  flush();
}

void AnswerWriter::put_error(std::int64_t input_line, const std::string& line) {
  ++n_errors_;
  bool is_first = true;
  for (Pending& pending : pending_) {
    if (pending.input_line != input_line || pending.ready) continue;
    pending.ready = true;
    pending.skip = !is_first;
    if (is_first) pending.text = line;
    is_first = false;
  }
  flush();
}

void AnswerWriter::append_journal(const Hash128& key, const std::string& line) {
  write_all(journal_.get(), line + "\n", path_ + ".journal");
  in_journal_[key] = {journal_bytes_, line.size()};
  journal_bytes_ += line.size() + 1;
}

void AnswerWriter::flush() {
  while (!pending_.empty() && pending_.front().ready) {
    Pending& next = pending_.front();
    const auto waiting = in_journal_.find(next.key);
    if (!next.skip) {
      if (next.text.empty()) {
        STARATTN_CHECK(waiting != in_journal_.end());
        next.text.resize(waiting->second.n_bytes);
        const ssize_t n = ::pread(journal_.get(), next.text.data(), next.text.size(),
                                  static_cast<off_t>(waiting->second.offset));
        if (n != static_cast<ssize_t>(next.text.size())) {
          fail(Exit::io, "reading {}.journal failed at byte {}", path_, waiting->second.offset);
        }
      }
      write_all(output_.get(), next.text + "\n", path_);
      sync(output_, path_);
    }
    if (waiting != in_journal_.end()) in_journal_.erase(waiting);
    pending_.pop_front();
  }
}

void AnswerWriter::finish() {
  if (!in_journal_.empty()) {
    log::warn("{} answer(s) in {}.journal belong to no line of this input: kept there",
              in_journal_.size(), path_);
    return;
  }
  ::unlink((path_ + ".journal").c_str());
}

}  // namespace starattn
