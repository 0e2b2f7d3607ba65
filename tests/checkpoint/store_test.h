// SPDX-License-Identifier: Apache-2.0
// A store in a folder of its own, and small documents whose K and V anyone can work out again.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/store.h"

namespace starattn {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

struct Sample {
  DocumentInfo info;
  std::vector<std::int32_t> tokens;
};

// Token i is i + 1000 * seed. Two layers, two heads, four dimensions; the last block may be short.
inline Sample sample(std::int64_t n_tokens = 10, std::int64_t block_size = 4,
                     Dtype dtype = Dtype::f32, int seed = 0) {
  Sample s;
  s.info.block_size = s.info.anchor_size = block_size;
  s.info.n_blocks = (n_tokens + block_size - 1) / block_size;
  s.info.plan = fmt::format("block_size={0} anchor_size={0} reach=0", block_size);
  s.info.kv_dtype = dtype;
  s.info.n_layers = 2;
  s.info.n_kv_heads = 2;
  s.info.head_dim = 4;
  s.info.model = digest_of("a model");
  s.info.provenance = {"starattn test", "starattn run --model m", "2026-01-02T03:04:05Z", "here"};
  for (std::int64_t i = 0; i < n_tokens; ++i)
    s.tokens.push_back(static_cast<std::int32_t>(i) + 1000 * seed);
  return s;
}

// Any bits at all, so most kinds of NaN and subnormal are among them.
inline Bytes values_of(const DocumentInfo& info, std::int64_t block, std::int64_t layer,
                       KvPart part) {
  std::mt19937 bits(static_cast<unsigned>(block * 100 + layer * 2 + (part == KvPart::v)));
  Bytes bytes(info.part_bytes(info.n_tokens_of(block)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(bits());
  return bytes;
}

inline KvSource source_of(const DocumentInfo& info, std::int64_t block) {
  return [info, block, bytes = std::make_shared<Bytes>()](std::int64_t layer, KvPart part) {
    *bytes = values_of(info, block, layer, part);
    return std::span<const std::byte>(*bytes);
  };
}

inline bool write(DocumentCheckpoint& document, std::int64_t block, const KvSource& source) {
  const DocumentInfo& info = document.info();
  return document.write_block(block, info.first_token(block), info.n_tokens_of(block), source);
}
inline bool write(DocumentCheckpoint& document, std::int64_t block) {
  return write(document, block, source_of(document.info(), block));
}

// K and V of layer 0, of layer 1, ...
inline std::vector<Bytes> read(const DocumentCheckpoint& document, std::int64_t block) {
  const DocumentInfo& info = document.info();
  std::vector<Bytes> parts;
  KvSink sink;
  sink.place = [&](std::int64_t, KvPart) {
    return std::span(parts.emplace_back(info.part_bytes(info.n_tokens_of(block))));
  };
  document.read_block(block, sink);
  return parts;
}

inline std::vector<Bytes> wanted(const DocumentInfo& info, std::int64_t block) {
  std::vector<Bytes> parts;
  for (std::int64_t layer = 0; layer < info.n_layers; ++layer) {
    for (const KvPart part : {KvPart::k, KvPart::v})
      parts.push_back(values_of(info, block, layer, part));
  }
  return parts;
}

inline std::string content(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}
inline void put(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

// What the call throws, or nothing.
inline std::optional<Error> error_of(const std::function<void()>& call) {
  try {
    call();
    return std::nullopt;
  } catch (const Error& error) {
    return error;
  }
}

// A process of its own that runs the body: exit code 0, 1 after an exception (printed).
inline pid_t start_child(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 0;
  try {
    body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "child: %s\n", error.what());
    code = 1;
  }
  std::fflush(nullptr);
  std::exit(code);  // with the work at exit, which must not crash either
}

inline int status_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

inline bool ended_well(pid_t child) {
  const int status = status_of(child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest()
      : folder_(fs::temp_directory_path() / fmt::format("starattn-store-{}", ::getpid())),
        store(folder_ / "kept", 2.0) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~StoreTest() override { fs::remove_all(folder_); }

  // A document with every block saved; returns its directory.
  fs::path save(const Sample& s) {
    DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
    for (std::int64_t block = 0; block < s.info.n_blocks; ++block) write(document, block);
    return document.directory();
  }

  // The whole document is there with the right values; else the reason.
  std::string problem_of(const Sample& s) const {
    try {
      const auto document = store.find(s.info, s.tokens);
      if (!document) return "not found";
      if (document->read_token_ids() != s.tokens) return "other tokens";
      for (std::int64_t block = 0; block < s.info.n_blocks; ++block) {
        if (read(*document, block) != wanted(document->info(), block)) return "other values";
      }
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }

  static int n_temporaries(const fs::path& directory) {
    int n = 0;
    for (const auto& entry : fs::directory_iterator(directory))
      n += is_temporary_name(entry.path().filename().string());
    return n;
  }

  fs::path folder_;
  CheckpointStore store;
};

}  // namespace starattn
