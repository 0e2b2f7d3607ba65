// SPDX-License-Identifier: Apache-2.0
#include "command/checkpoint_probe.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <numeric>
#include <optional>
#include <system_error>

#include "base/clock.h"
#include "base/text.h"
#include "checkpoint/file_io.h"
#include "checkpoint/store.h"
#include "mpi/runtime.h"

namespace starattn {
namespace {

constexpr std::int64_t kTokens = 8192;
constexpr std::size_t kBytes = std::size_t{64} << 20;

DocumentInfo trial_document() {
  DocumentInfo info;
  info.plan = "doctor";
  info.block_size = info.anchor_size = kTokens;
  info.n_blocks = 1;
  info.n_layers = 1;
  info.n_kv_heads = 8;
  info.head_dim = 128;
  info.provenance = {"starattn doctor", "", "", host_name()};
  return info;
}

std::vector<std::int32_t> trial_tokens() {
  std::vector<std::int32_t> tokens(kTokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// K's bits, or V's: every word another.
std::vector<std::uint32_t> trial_values(KvPart part) {
  std::vector<std::uint32_t> values(kBytes / 2 / sizeof(std::uint32_t));
  std::uint32_t word = part == KvPart::k ? 1 : 2;
  for (std::uint32_t& value : values) value = word = word * 1664525 + 1013904223;
  return values;
}

// A new directory of ours, gone with all it holds at the end; one made for it too.
class TrialDirectory {
 public:
  explicit TrialDirectory(const std::string& parent)
      : parent_(parent),
        made_parent_(!exists(parent)),
        path_(fmt::format("{}/doctor-{}-{}-{}", parent, host_name(), ::getpid(),
                          std::time(nullptr))) {
    make_directories(parent_);
    std::error_code error;
    if (!std::filesystem::create_directory(path_, error)) {
      fail(Exit::cannot_create, "cannot create directory {}: {}", path_, error.message());
    }
  }
  TrialDirectory(const TrialDirectory&) = delete;
  TrialDirectory& operator=(const TrialDirectory&) = delete;
  ~TrialDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
    if (made_parent_) ::rmdir(parent_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string parent_;
  bool made_parent_;
  std::string path_;
};

double seconds_to_write(const std::string& directory) {
  const std::vector<std::uint32_t> k = trial_values(KvPart::k);
  const std::vector<std::uint32_t> v = trial_values(KvPart::v);
  const Stopwatch clock;
  DocumentCheckpoint document =
      CheckpointStore(directory).open_or_create(trial_document(), trial_tokens());
  document.write_block(0, 0, kTokens, [&](std::int64_t, KvPart part) {
    return std::as_bytes(std::span(part == KvPart::k ? k : v));
  });
  return clock.seconds();
}

double seconds_to_read(const std::string& directory) {
  std::vector<std::uint32_t> k(kBytes / 2 / sizeof(std::uint32_t));
  std::vector<std::uint32_t> v(k.size());
  const Stopwatch clock;
  const auto document = CheckpointStore(directory).find(trial_document(), trial_tokens());
  if (!document) {
    fail(Exit::bad_data,
         "{} on {} has not what the first rank saved there: checkpoints need a directory that all "
         "ranks share",
         directory, host_name());
  }
  KvSink sink;
  sink.place = [&](std::int64_t, KvPart part) {
    return std::as_writable_bytes(std::span(part == KvPart::k ? k : v));
  };
  document->read_block(0, sink);
  const double seconds = clock.seconds();
  if (k != trial_values(KvPart::k) || v != trial_values(KvPart::v)) {
    fail(Exit::bad_data, "{} on {}: other values than were saved", directory, host_name());
  }
  return seconds;
}

std::string rate(double seconds) {
  return fmt::format("{:.0f} MB/s", static_cast<double>(kBytes) / seconds * 1e-6);
}

}  // namespace

std::string probe_checkpoints(const Communicator& world, const std::string& directory) {
  std::optional<TrialDirectory> trial;
  double write_seconds = 0;
  double read_seconds = 0;
  collectively(world, [&] {
    if (!world.is_root()) return;
    trial.emplace(directory);
    write_seconds = seconds_to_write(trial->path());
  });
  const std::string path = world.bcast_text(trial ? trial->path() : "", 0);
  collectively(world, [&] { read_seconds = seconds_to_read(path); });  // all have read: it may go
  const std::vector<double> all = world.allgather(read_seconds);
  return fmt::format("{}: {} saved, synced and checked at {}, read back by {} rank(s) at {} each",
                     directory, human_bytes(kBytes), rate(world.bcast_value(write_seconds, 0)),
                     world.size(), rate(*std::ranges::max_element(all)));
}

}  // namespace starattn
