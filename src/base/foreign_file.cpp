// SPDX-License-Identifier: Apache-2.0
#include "base/foreign_file.h"

namespace starattn {
namespace {

struct Kind {
  std::string_view first_bytes;
  const char* what;
};

constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";
constexpr const char* kTakeSafetensors =
    ". starattn reads the model's folder in the format of Hugging Face, with safetensors";

constexpr Kind kKinds[] = {
    {kLfsPointer,
     "is a Git LFS pointer, not the file itself: run 'git lfs pull' in its folder, or download it"},
    {"GGUF", "is a GGUF file, as llama.cpp has them"},
    {std::string_view("PK\x03\x04", 4), "is a PyTorch checkpoint or another zip archive"},
    {std::string_view("\x80\x02", 2), "is a Python pickle, as old PyTorch checkpoints are"},
    {"\x89HDF", "is an HDF5 file, as Keras has them"},
    {std::string_view("\x1f\x8b", 2), "is compressed with gzip: decompress it first"},
    {"<!DOCTYPE",
     "is a web page: its download gave an error or asked to log in. Download it again"},
    {"<html", "is a web page: its download gave an error or asked to log in. Download it again"},
};

}  // namespace

bool is_lfs_pointer(std::string_view bytes) {
  return bytes.starts_with(kLfsPointer);
}

std::string what_else_it_is(std::string_view bytes) {
  for (const Kind& kind : kKinds) {
    if (!bytes.starts_with(kind.first_bytes)) continue;
    const std::string what = kind.what;
    return what.find(':') == std::string::npos ? what + kTakeSafetensors : what;
  }
  return "";
}

}  // namespace starattn
