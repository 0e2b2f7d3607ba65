// SPDX-License-Identifier: Apache-2.0
#include "io/text_source.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file_purposes.h"
#include "base/text.h"

namespace starattn {
namespace {

using namespace std::string_view_literals;

constexpr std::size_t kLookAhead = 8;
constexpr std::size_t kPackedBytes = std::size_t{1} << 16;

// What begins like this is no text of ours.
struct Format {
  std::string_view begin;
  std::string_view what;
  std::string_view advice;
};
constexpr std::string_view kRecode = "convert it: iconv -f UTF-16 -t UTF-8";
constexpr Format kForeign[] = {
    {"\xff\xfe\0\0"sv, "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"},
    {"\0\0\xfe\xff"sv, "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"},
    {"\xff\xfe"sv, "UTF-16 text", kRecode},
    {"\xfe\xff"sv, "UTF-16 text", kRecode},
    {"\x28\xb5\x2f\xfd"sv, "compressed with zstd", "unpack it: zstd -d"},
    {"\xfd"
     "7zXZ\0"sv,
     "compressed with xz", "unpack it: unxz"},
    {"\x04\x22\x4d\x18"sv, "compressed with lz4", "unpack it: lz4 -d"},
    {"PK\x03\x04"sv, "a zip archive (or a document of an office program)",
     "unpack it and give the text in it"},
    {"7z\xbc\xaf\x27\x1c"sv, "a 7z archive", "unpack it and give the text in it"},
    {"%PDF-"sv, "a PDF document", "convert it: pdftotext"},
    {"PAR1\x15"sv, "a Parquet table", "write its rows as JSON Lines"},
    {"\x89HDF"sv, "an HDF5 file", "give a text"},
    {"\xd0\xcf\x11\xe0"sv, "a document of an office program", "save it as text"}};

bool is_utf16(std::string_view begin, std::size_t zero) {
  return begin.size() >= 4 && begin[zero] == 0 && begin[zero + 2] == 0 && begin[1 - zero] != 0 &&
         begin[3 - zero] != 0;
}

void refuse_foreign(std::string_view begin, const std::string& name) {
  const auto refuse = [&](const Format& format) {
    fail(Exit::bad_data, "{}: expected text in UTF-8 (gzip is read too), got {}; {}", name,
         format.what, format.advice);
  };
  for (const Format& format : kForeign)
    if (begin.starts_with(format.begin)) refuse(format);
  if (begin.size() > 4 && begin.starts_with("BZh") && begin.substr(4).starts_with("1AY"))
    refuse({"", "compressed with bzip2", "unpack it: bunzip2"});
  if (is_utf16(begin, 1)) refuse({"", "UTF-16 text", "convert it: iconv -f UTF-16LE -t UTF-8"});
  if (is_utf16(begin, 0)) refuse({"", "UTF-16 text", "convert it: iconv -f UTF-16BE -t UTF-8"});
}

bool is_gzip(std::string_view begin) {
  return begin.starts_with("\x1f\x8b");
}

// O_NONBLOCK: the wait for who writes to a pipe is ours, where a signal is heard.
FileDescriptor open_input(const std::string& path) {
  FileDescriptor file(path == kStandardStream
                          ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                          : ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid())
    fail(Exit::no_input, "cannot open {}: {}", name_of_input(path), std::strerror(errno));
  return file;
}

}  // namespace

std::string name_of_input(const std::string& path) {
  return path == kStandardStream ? "standard input" : path;
}

TextSource::TextSource(const std::string& path, Kind kind, StopWaiting stop)
    : name_(name_of_input(path)), stop_(std::move(stop)), file_(open_input(path)) {
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0)
    fail(Exit::no_input, "cannot stat {}: {}", name_, std::strerror(errno));
  if (S_ISDIR(info.st_mode)) fail(Exit::no_input, "{} is a folder", name_);
  is_pipe_ = !S_ISREG(info.st_mode);
  if (kind == Kind::as_it_is) return;

  char begin[kLookAhead];
  while (ahead_.size() < kLookAhead) {
    const std::size_t n = read_raw(begin, kLookAhead - ahead_.size());
    if (n == 0) break;
    ahead_.append(begin, n);
  }
  refuse_foreign(ahead_, name_);
  if (!is_gzip(ahead_)) return;
  gzip_ = std::make_unique<z_stream>();
  constexpr int kGzipOnly = 16;
  if (::inflateInit2(gzip_.get(), kGzipOnly + MAX_WBITS) != Z_OK) {
    gzip_.reset();
    fail(Exit::unfit, "{}: zlib could not be started", name_);
  }
  packed_ = std::exchange(ahead_, "");
  gzip_->next_in = reinterpret_cast<Bytef*>(packed_.data());
  gzip_->avail_in = static_cast<uInt>(packed_.size());
  ahead_.resize(kLookAhead);
  std::size_t n_ahead = 0;
  while (n_ahead < kLookAhead) {
    const std::size_t n = unpack(ahead_.data() + n_ahead, kLookAhead - n_ahead);
    if (n == 0) break;
    n_ahead += n;
  }
  ahead_.resize(n_ahead);
  refuse_foreign(ahead_, name_ + ", unpacked");
  if (is_gzip(ahead_))
    fail(Exit::bad_data, "{}: packed with gzip twice; unpack it once: gunzip", name_);
}

TextSource::~TextSource() {
  if (gzip_) ::inflateEnd(gzip_.get());
}

std::size_t TextSource::read(char* to, std::size_t n) {
  if (!ahead_.empty()) {
    const std::size_t n_given = std::min(n, ahead_.size());
    std::memcpy(to, ahead_.data(), n_given);
    ahead_.erase(0, n_given);
    return n_given;
  }
  return gzip_ ? unpack(to, n) : read_raw(to, n);
}

void TextSource::wait() const {
  constexpr int kMilliseconds = 100;
  pollfd one{file_.get(), POLLIN, 0};
  while (::poll(&one, 1, kMilliseconds) <= 0) {
    if (stop_ && stop_())
      fail(Exit::stopped, "stopped, as asked, while waiting for {} to be written", name_);
  }
}

std::size_t TextSource::read_raw(char* to, std::size_t n) {
  for (;;) {
    if (is_pipe_) wait();
    const ssize_t n_read = ::read(file_.get(), to, n);
    if (n_read >= 0) return static_cast<std::size_t>(n_read);
    if (errno != EINTR && errno != EAGAIN)
      fail(Exit::io, "reading {} failed: {}", name_, std::strerror(errno));
  }
}

// Members follow each other where files were packed apart and joined.
std::size_t TextSource::unpack(char* to, std::size_t n) {
  gzip_->next_out = reinterpret_cast<Bytef*>(to);
  gzip_->avail_out = static_cast<uInt>(std::min<std::size_t>(n, UINT32_MAX));
  const uInt room = gzip_->avail_out;
  while (gzip_->avail_out == room) {
    if (gzip_->avail_in == 0) {
      packed_.resize(kPackedBytes);
      packed_.resize(read_raw(packed_.data(), packed_.size()));
      gzip_->next_in = reinterpret_cast<Bytef*>(packed_.data());
      gzip_->avail_in = static_cast<uInt>(packed_.size());
      if (packed_.empty()) {
        if (is_in_member_)
          fail(Exit::bad_data, "{}: the gzip data end too early: is the file complete?", name_);
        return 0;
      }
    }
    is_in_member_ = true;
    const int state = ::inflate(gzip_.get(), Z_NO_FLUSH);
    if (state == Z_STREAM_END) {
      is_in_member_ = false;
      ::inflateReset(gzip_.get());
    } else if (state != Z_OK && state != Z_BUF_ERROR) {
      fail(Exit::bad_data, "{}: the gzip data are damaged ({})", name_,
           gzip_->msg ? gzip_->msg : "zlib gives no reason");
    }
  }
  return room - gzip_->avail_out;
}

std::string read_text(const std::string& path, std::size_t max_bytes) {
  TextSource source(path, TextSource::Kind::brought);
  return read_text(source, max_bytes);
}

std::string read_text(TextSource& source, std::size_t max_bytes) {
  std::string text;
  std::size_t n_read = 0;
  do {
    const std::size_t old = text.size();
    if (old > max_bytes)
      fail(Exit::bad_data, "{}: more than {} bytes of text, which is the most that is read",
           source.name(), max_bytes);
    text.resize(old + std::clamp<std::size_t>(old, std::size_t{1} << 16, std::size_t{1} << 26));
    n_read = source.read(text.data() + old, text.size() - old);
    text.resize(old + n_read);
  } while (n_read > 0);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  std::size_t bad = 0;
  if (!is_utf8(text, &bad)) fail(Exit::bad_data, "{}: not UTF-8 at byte {}", source.name(), bad);
  return text;
}

}  // namespace starattn
