// SPDX-License-Identifier: Apache-2.0
#include "command/inspect_checkpoint.h"

#include <algorithm>
#include <iostream>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "checkpoint/store.h"

namespace starattn {
namespace {

constexpr std::size_t kMinKeyDigits = 4;

void print(const char* what, const std::string& text) {
  std::cout << fmt::format("{:<12}{}\n", what, one_line(text));
}

void print_document(const DocumentCheckpoint& document, std::size_t n_saved) {
  const DocumentInfo& info = document.info();
  print("key", document.key().hex());
  print("tokens",
        fmt::format("{}, digest {}", with_commas(info.n_tokens), info.token_digest.hex()));
  print("plan", info.plan);
  print("blocks", fmt::format("{} of {} saved", n_saved, info.n_blocks));
  print("KV", fmt::format("{}, {} layers, {} heads of {}: {} in all", name_of(info.kv_dtype),
                          info.n_layers, info.n_kv_heads, info.head_dim,
                          human_bytes(info.part_bytes(info.n_tokens) * 2 *
                                      static_cast<std::size_t>(info.n_layers))));
  print("model", info.model.hex());
  print("made by", fmt::format("{} on {}, {}", info.provenance.program, info.provenance.host,
                               info.provenance.created));
  print("command", info.provenance.command_line);
}

Json to_json(const DocumentCheckpoint& document) {
  const DocumentInfo& info = document.info();
  return {{"schema", "starattn-checkpoint-1"},
          {"key", document.key().hex()},
          {"tokens", info.n_tokens},
          {"token_digest", info.token_digest.hex()},
          {"plan", info.plan},
          {"kv_dtype", name_of(info.kv_dtype)},
          {"layers", info.n_layers},
          {"kv_heads", info.n_kv_heads},
          {"head_dim", info.head_dim},
          {"model", info.model.hex()},
          {"program", info.provenance.program},
          {"host", info.provenance.host},
          {"created", info.provenance.created},
          {"command", info.provenance.command_line}};
}

class BlockTable {
 public:
  BlockTable(const DocumentCheckpoint& document, const Manifest& manifest, bool verify)
      : document_(document),
        manifest_(manifest),
        verify_(verify),
        present_(document.blocks_present()) {}

  void print() {
    std::cout << fmt::format("\n{:>7}  {:>13}  {:>11}  {:>11}  {}\n", "BLOCK", "FIRST TOKEN",
                             "TOKENS", "SIZE", "STATE");
    const DocumentInfo& info = document_.info();
    for (std::int64_t block = 0; block < info.n_blocks; ++block) {
      const auto listed = manifest_.blocks.find(block);
      const bool saved = listed != manifest_.blocks.end();
      std::cout << fmt::format(
          "{:>7}  {:>13}  {:>11}  {:>11}  {}\n", block, with_commas(info.first_token(block)),
          with_commas(info.n_tokens_of(block)), saved ? human_bytes(listed->second.n_bytes) : "-",
          saved ? one_line(state_of(block, listed->second.n_bytes)) : "absent");
    }
  }

  Json to_json() {
    Json blocks = Json::array();
    const DocumentInfo& info = document_.info();
    for (std::int64_t block = 0; block < info.n_blocks; ++block) {
      const auto listed = manifest_.blocks.find(block);
      const bool saved = listed != manifest_.blocks.end();
      blocks.push_back({{"first_token", info.first_token(block)},
                        {"tokens", info.n_tokens_of(block)},
                        {"bytes", saved ? listed->second.n_bytes : 0},
                        {"state", saved ? state_of(block, listed->second.n_bytes) : "absent"}});
    }
    return blocks;
  }
  bool is_sound() const { return n_damaged_ == 0; }

  void print_verdict() const {
    if (verify_) {
      const double seconds = watch_.seconds();
      std::cout << fmt::format("\n{} damaged; {} checked in {}, {:.0f} MB/s\n", n_damaged_,
                               human_bytes(n_bytes_), human_seconds(seconds),
                               static_cast<double>(n_bytes_) / seconds * 1e-6);
    }
  }

 private:
  std::string state_of(std::int64_t block, std::uint64_t n_bytes) {
    std::string problem;
    if (!std::ranges::binary_search(present_, block)) problem = "file missing or of another size";
    if (problem.empty() && verify_) {
      problem = document_.damage_of(block).value_or("");
      n_bytes_ += n_bytes;
    }
    n_damaged_ += !problem.empty();
    if (!problem.empty()) return problem;
    return verify_ ? "sound" : "saved";
  }

  const DocumentCheckpoint& document_;
  const Manifest& manifest_;
  bool verify_;
  std::vector<std::int64_t> present_;
  Stopwatch watch_;
  int n_damaged_ = 0;
  std::uint64_t n_bytes_ = 0;
};

}  // namespace

std::optional<CheckpointPath> find_checkpoint(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const std::string store = parent_directory(path);
  const std::string name = path.substr(path.find_last_of('/') + 1);
  if (const auto key = Digest::from_hex(name)) return CheckpointPath{store, *key};
  if (name.size() < kMinKeyDigits || name.find_first_not_of("0123456789abcdef") != name.npos) {
    return std::nullopt;
  }
  std::optional<CheckpointPath> found;
  for (const DocumentSummary& document : CheckpointStore(store).list()) {
    if (!document.key.hex().starts_with(name)) continue;
    if (found) fail(Exit::usage, "{}: several keys in {} begin so; give more digits", path, store);
    found = CheckpointPath{store, document.key};
  }
  return found;
}

Exit inspect_checkpoint(const CheckpointPath& path, bool verify, bool as_json) {
  const DocumentCheckpoint document = CheckpointStore(path.store).open(path.key);
  const std::optional<Manifest> manifest = read_manifest(document.directory(), path.key);
  if (!manifest) fail(Exit::no_input, "{}: removed while it was looked at", document.directory());
  BlockTable table(document, *manifest, verify);
  if (as_json) {
    Json json = to_json(document);
    json["blocks"] = table.to_json();
    std::cout << to_line(json) << "\n";
  } else {
    print_document(document, document.blocks_present().size());
    table.print();
    table.print_verdict();
  }
  return table.is_sound() ? Exit::ok : Exit::bad_data;
}

}  // namespace starattn
