// SPDX-License-Identifier: Apache-2.0
#include "io/answer_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "io/line_digest.h"
#include "io/line_reader.h"

namespace starattn {
namespace {

constexpr int kLockSeconds = 10;
// In the settings of a file whose lines all have a digest.
constexpr const char* kDigestKey = "line_digest";
constexpr const char* kDigestName = "xxh3-64";

FileDescriptor open_to_write(const std::string& path) {
  require_place_for_output(path);
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644));
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
  if (key == "chat_markup" && was.is_null())
    return "Use version 0.1.0, which did not run the model's chat template,";
  if (key != "query_prefix") return "Use the same settings";
  if (was == kDefaultQueryPrefix) return "Leave --query-prefix out";
  return "Pass --query-prefix " + quoted_for_a_shell(was.is_string() ? was.get<std::string>() : "");
}

// A request's document and its one query have the same name.
std::string describe(const AnswerKey& key) {
  if (key.id == key.query_id) return fmt::format("'{}'", key.id);
  return fmt::format("document '{}', query '{}'", key.id, key.query_id);
}

}  // namespace

void AnswerWriter::declare(FilePurposes& files, const std::string& option,
                           const std::string& path) {
  files.writes_or_streams(option, path);
  if (path.empty() || path == kStandardStream) return;
  const std::string real = real_path(path);
  files.writes("the journal of " + option, real + ".journal");
  files.writes("the settings of " + option, real + ".settings.json");
}

void AnswerWriter::check_answer_text(const Json& line, const std::string& where) {
  JsonObject(line, where).get_string("answer");
}

AnswerWriter::AnswerWriter(const std::string& path, const Json& settings, bool overwrite,
                           LineCheck check, KeyOfLine key_of_line)
    : path_(real_path(path)), check_(std::move(check)), key_of_line_(std::move(key_of_line)) {
  require_place_for_output(path);
  open_and_lock();
  check_settings(settings, overwrite);
  journal_ = open_to_write(journal_path());
  fsync_directory(parent_directory(path_));
  recover();
}

void AnswerWriter::open_and_lock() {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(kLockSeconds);
  for (;;) {
    output_ = open_to_write(path_);
    while (::flock(output_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) {
        fail(Exit::cannot_create, "cannot lock {}: {} (the file system must support flock)", path_,
             std::strerror(errno));
      }
      if (std::chrono::steady_clock::now() > give_up) {
        fail(Exit::cannot_create,
             "{} is being written by another run, under this name or another (it held the lock for "
             "{} s). Wait for it, or choose another --output",
             path_, kLockSeconds);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    if (is_still_at(output_, path_)) return;  // else somebody has moved or replaced it
  }
}

void AnswerWriter::check_settings(const Json& settings, bool overwrite) {
  const bool has_answers = file_bytes(path_) > 0 || file_bytes(journal_path()) > 0;
  if (has_answers) {
    const std::string difference = difference_from(settings);
    if (difference.empty()) return;
    if (!overwrite) fail(Exit::usage, "{}", difference);
    const FileDescriptor journal = open_to_write(journal_path());
    cut(journal, 0, journal_path());
    cut(output_, 0, path_);
  }
  Json kept = settings;
  kept[kDigestKey] = kDigestName;
  has_digests_ = true;
  write_file_durably(settings_path(),
                     kept.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

// Why answers with these settings cannot be put beside those that are there; empty when they can.
std::string AnswerWriter::difference_from(const Json& settings) {
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
    if (error.exit() == Exit::io) throw;  // they may well agree: the disk does not say
    return fmt::format("{}; choose another --output, or pass --overwrite to replace {}",
                       error.what(), path_);
  }
  if (!old.is_object()) {
    return fmt::format(
        "{}: expected an object, got {}; choose another --output, or pass --overwrite to replace "
        "{}",
        settings_path(), old.type_name(), path_);
  }
  has_digests_ = old.contains(kDigestKey);
  const auto difference = [&](const std::string& key, const Json& is) -> std::string {
    const Json was = setting_of(old, key);
    if (was == is) return "";
    const auto shown = [](const Json& value) { return value.is_null() ? "unset" : to_line(value); };
    return fmt::format(
        "{} was made with {} = {}, now it is {}. {} to continue it, another --output, or "
        "--overwrite to replace it",
        path_, key, shown(was), shown(is), how_to_continue(key, was));
  };
  for (const auto& [key, value] : settings.items()) {
    if (std::string text = difference(key, value); !text.empty()) return text;
  }
  for (const auto& [key, value] : old.items()) {
    if (key == kDigestKey || settings.contains(key)) continue;
    if (std::string text = difference(key, Json()); !text.empty()) return text;
  }
  return "";
}

// The longest prefix of good answer lines stays. Behind a bad or error line, good lines go back to
// the journal (synced before the output is cut), so that input order holds again when they return.
void AnswerWriter::recover() {
  recover_journal();
  cut(journal_, journal_bytes_, journal_path());
  const std::uint64_t output_end = recover_output();
  sync(journal_, journal_path());
  cut(output_, output_end, path_);
  if (n_wrong_ > 0) {
    log::warn(
        "{}: {} line(s) of an earlier run were wrong and are left out; what they answered is "
        "answered again",
        path_, n_wrong_);
  }
}

std::uint64_t AnswerWriter::recover_output() {
  std::uint64_t good_end = 0;
  bool in_prefix = true;
  std::unordered_map<Hash128, std::int64_t, Hasher> line_of;
  LineReader lines(path_, {}, TextSource::Kind::as_it_is);
  while (const std::optional<Line> text = lines.next()) {
    if (!text->is_ended) break;  // torn: a run died here
    bool good = false;
    try {
      const std::string where = fmt::format("{}:{}", path_, text->number);
      const AnswerKey line = read_kept(text->text, where);
      if (!line.is_error) {
        const Hash128 key = key_of(line.id, line.query_id);
        const auto [first, is_new] = line_of.emplace(key, text->number);
        if (!is_new) {
          fail(Exit::bad_data, "{}: a second answer to {}; the first is in line {}", where,
               describe(line), first->second);
        }
        good = true;
        if (in_prefix) {
          in_output_[key] = false;
        } else if (!in_journal_.contains(key)) {
          append_journal(key, text->text);
        }
      }
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_data) throw;  // the disk is at fault, not the line
      say_wrong(error.what());
    }
    in_prefix = in_prefix && good;
    if (in_prefix) good_end = text->end;
  }
  return good_end;
}

void AnswerWriter::recover_journal() {
  LineReader lines(journal_path(), {}, TextSource::Kind::as_it_is);
  while (const std::optional<Line> text = lines.next()) {
    if (!text->is_ended) break;
    try {
      const AnswerKey line =
          read_kept(text->text, fmt::format("{}:{}", journal_path(), text->number));
      if (!line.is_error)
        in_journal_[key_of(line.id, line.query_id)] = {text->begin, text->text.size()};
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_data) throw;  // the disk is at fault, not the line
      say_wrong(error.what());
    }
    journal_bytes_ = text->end;
  }
}

AnswerKey AnswerWriter::read_kept(const std::string& text, const std::string& where) const {
  const Json json = parse_json(text, where, {std::size_t{1} << 30, 64});
  AnswerKey line = key_of_line_(json, where);
  if (line.is_error) return line;
  const LineDigest digest = check_digest(text);
  if (digest == LineDigest::wrong || (digest == LineDigest::none && has_digests_)) {
    fail(Exit::bad_data, "{}: the line was changed since it was written ({})", where,
         digest == LineDigest::wrong ? "its digest is another" : "its digest is missing");
  }
  check_(json, where);
  return line;
}

void AnswerWriter::say_wrong(const std::string& what) {
  constexpr std::int64_t kMostSaid = 10;
  if (++n_wrong_ <= kMostSaid) log::warn("{}", what);
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

void AnswerWriter::expect(const std::string& id, const std::string& query_id,
                          std::int64_t input_line) {
  const Hash128 key = key_of(id, query_id);
  const auto there = in_output_.find(key);
  const bool skip = there != in_output_.end();
  if (skip) there->second = true;
  place_of_[key] = n_flushed_ + pending_.size();
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
    pending_.front().text = with_digest(line);
  } else {
    append_journal(key, with_digest(line));
  }
  if (const auto place = place_of_.find(key); place != place_of_.end())
    pending_[place->second - n_flushed_].ready = true;
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

void AnswerWriter::give_up(std::int64_t input_line) {
  for (Pending& pending : pending_) {
    if (pending.input_line == input_line && !pending.ready) pending.ready = pending.skip = true;
  }
  flush();
}

void AnswerWriter::append_journal(const Hash128& key, const std::string& line) {
  write_all(journal_.get(), line + "\n", journal_path());
  in_journal_[key] = {journal_bytes_, line.size()};
  journal_bytes_ += line.size() + 1;
  is_journal_ahead_ = true;
}

void AnswerWriter::commit() {
  if (std::exchange(is_journal_ahead_, false)) sync(journal_, journal_path());
  if (std::exchange(is_output_ahead_, false)) sync(output_, path_);
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
          fail(Exit::io, "reading {} failed at byte {}", journal_path(), waiting->second.offset);
        }
      }
      write_all(output_.get(), next.text + "\n", path_);
      is_output_ahead_ = true;
    }
    if (waiting != in_journal_.end()) in_journal_.erase(waiting);
    place_of_.erase(next.key);
    pending_.pop_front();
    ++n_flushed_;
  }
}

// As in recover(): what stands behind the first such line is in the journal before it is cut off.
void AnswerWriter::set_aside_unexpected() {
  constexpr std::int64_t kMostSaid = 10;
  const auto is_expected_entry = [](const auto& entry) { return entry.second; };
  if (std::all_of(in_output_.begin(), in_output_.end(), is_expected_entry)) return;
  std::int64_t n_unexpected = 0;
  std::uint64_t begin = 0;  // of the first such line
  std::string rest;         // what stays of the lines behind it
  std::vector<Hash128> stay;
  LineReader lines(path_, {}, TextSource::Kind::as_it_is);
  while (const std::optional<Line> text = lines.next()) {
    const AnswerKey line = read_kept(text->text, fmt::format("{}:{}", path_, text->number));
    const Hash128 key = key_of(line.id, line.query_id);
    const auto there = in_output_.find(key);
    const bool is_expected = line.is_error || there == in_output_.end() || there->second;
    if (n_unexpected == 0 && is_expected) continue;
    if (n_unexpected == 0) begin = text->begin;
    if (!line.is_error) append_journal(key, text->text);
    if (is_expected) {
      rest += text->text + "\n";
      if (!line.is_error) stay.push_back(key);
    } else if (++n_unexpected <= kMostSaid) {
      log::warn("{}:{}: {} is not in the input", path_, text->number, describe(line));
    }
  }
  sync(journal_, journal_path());
  cut(output_, begin, path_);
  write_all(output_.get(), rest, path_);
  sync(output_, path_);
  for (const Hash128& key : stay) in_journal_.erase(key);
  log::warn("{}: {} answer(s) to what is not in the input are left out", path_, n_unexpected);
}

void AnswerWriter::finish(bool knows_every_key) {
  commit();
  if (knows_every_key) set_aside_unexpected();
  if (!in_journal_.empty()) {
    log::warn("{} answer(s) in {} belong to no line of this input: kept there", in_journal_.size(),
              journal_path());
    return;
  }
  ::unlink(journal_path().c_str());
}

}  // namespace starattn
