// SPDX-License-Identifier: Apache-2.0
#include "star/machine.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../temporary_folder.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace starattn {
namespace {

Machine machine() {
  Machine m;
  m.name = "a machine";
  m.date = "2026-11-28";
  m.dtype = Dtype::bf16;
  m.chunk_rows = 8192;
  m.reference_flops_per_s = 8e14;
  m.products = {{256, 256, 1e14}, {256, 4096, 2e14}, {4096, 256, 4e14}, {4096, 4096, 8e14}};
  m.attention = {{64, 8192, 3e14}, {128, 8192, 4e14}, {128, 131072, 6e14}};
  m.row_bytes_per_s = m.scoring_flops_per_s = m.likeness_bytes_per_s = m.best_of_keys_per_s = 1e12;
  m.thin_layers = m.thin_products = m.thin_attention = m.thin_merges = m.next_tokens = {
      {1, 64, {1e-6, 4e12}}, {8, 64, {2e-6, 4e12}}, {1, 128, {1e-6, 1e12}}, {8, 128, {2e-6, 1e12}}};
  m.message = ByteTime{1e-5, 1e10};
  m.in_layer = {{1024, 1, 1}, {4096, 1.21, 0.81}};
  m.block_start = ByteTime{1e-3, 1e9};
  m.experts = {{{768, 1e12}, {3072, 4e12}}, m.next_tokens};
  m.f8_weights = {m.in_layer, m.thin_layers, m.experts};
  m.f8_kv = {m.in_layer, m.thin_attention};
  m.groups = {
      {2, {4096, 1.3, 1}, m.thin_layers, m.next_tokens, m.next_tokens, 1e-12, {1e-4, 1e12}},
      {4, {4096, 1.5, 1}, m.thin_layers, m.next_tokens, m.next_tokens, 2e-12, {2e-4, 1e12}}};
  return m;
}

class MachineFile : public ::testing::Test {
 protected:
  // The file with one key set to something else, or taken out.
  std::string with(const std::string& key, const Json& value) {
    Json json = parse_json(to_text(machine()), "m");
    if (value.is_null()) {
      json.erase(key);
    } else {
      json[key] = value;
    }
    write_file_durably(path, json.dump());
    return path;
  }
  TemporaryFolder folder;
  std::string path = folder.file("machine.json");
};

TEST_F(MachineFile, IsReadAsItWasWritten) {
  write_file_durably(path, to_text(machine()));
  EXPECT_EQ(to_text(read_machine(path)), to_text(machine()));
}

TEST_F(MachineFile, SaysWhatIsWrong) {
  const std::pair<const char*, Json> cases[] = {
      {"format", "another"},
      {"version", 3},
      {"in_layer", Json::array()},
      {"in_layer", {{{"hidden_size", 1}, {"products", 0}, {"attention", 1}}}},
      {"experts", {{"products", Json::array()}}},
      {"f8_kv", 1},
      {"groups", Json::array()},
      {"groups", {{{"ranks", 1}}}},
      {"products", nullptr},
      {"products", Json::array()},
      {"row_bytes_per_s", 0},
      {"chunk_rows", -1},
      {"thin_layers", 3},
      {"message", {{"start_s", -1}, {"bytes_per_s", 1}}},
      // Beyond any machine: times could not be added up.
      {"row_bytes_per_s", 1e-300},
      {"row_bytes_per_s", 1e300},
      {"message", {{"start_s", 1e300}, {"bytes_per_s", 1}}},
  };
  for (const auto& [key, value] : cases) {
    try {
      read_machine(with(key, value));
      ADD_FAILURE() << key << " " << value;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data) << error.what();
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    }
  }
  Json products = parse_json(to_text(machine()), "m")["products"];
  products.erase(1);
  EXPECT_THROW(read_machine(with("products", products)), Error);  // no whole grid
}

TEST_F(MachineFile, OfVersion1HasNeitherLayersNorFp8) {
  Json json = parse_json(to_text(machine()), "m");
  json["version"] = 1;
  for (const char* key : {"in_layer", "block_start", "experts", "f8_weights", "f8_kv", "groups"})
    json.erase(key);
  write_file_durably(path, json.dump());
  const Machine m = read_machine(path);
  EXPECT_EQ(in_layer_of(m.in_layer, 4096).products, 1);
  EXPECT_FALSE(m.block_start || m.experts || m.f8_weights || m.f8_kv);
}

TEST_F(MachineFile, HasGroupsInAscendingOrder) {
  Json groups = parse_json(to_text(machine()), "m")["groups"];
  std::swap(groups[0], groups[1]);
  EXPECT_THROW(read_machine(with("groups", groups)), Error);
  groups[0]["copy_s_a_byte"] = -1;
  EXPECT_THROW(read_machine(with("groups", groups)), Error);
}

TEST(Machine, TakesTheSmallestGroupThatIsLargeEnough) {
  const Machine m = machine();
  EXPECT_EQ(group_of(m, 2)->n_ranks, 2);
  EXPECT_EQ(group_of(m, 3)->n_ranks, 4);
  EXPECT_EQ(group_of(m, 16)->n_ranks, 4);
  EXPECT_EQ(group_of({}, 2), nullptr);
}

TEST(Machine, InterpolatesByTheLogarithmAndStopsAtTheEnds) {
  const Machine m = machine();
  EXPECT_NEAR(m.product_rate(1024, 1024), std::sqrt(1e14 * 8e14), 1e9);  // half way both ways
  EXPECT_NEAR(m.product_rate(4096, 1024), std::sqrt(4e14 * 8e14), 1e9);
  EXPECT_NEAR(m.product_rate(1, 1), 1e14, 1e6);
  EXPECT_NEAR(m.product_rate(1 << 20, 1 << 20), 8e14, 1e6);
  EXPECT_NEAR(m.attention_rate(128, 32768), std::sqrt(4e14 * 6e14), 1e9);
  EXPECT_NEAR(in_layer_of(m.in_layer, 2048).products, 1.1, 1e-12);
  EXPECT_NEAR(in_layer_of(m.in_layer, 8192).attention, 0.81, 1e-12);
  EXPECT_NEAR(expert_rate(*m.experts, 1536), 2e12, 1);
  EXPECT_NEAR(m.attention_rate(80, 1 << 20), 3e14, 1e6);  // the nearest head_dim
  EXPECT_NEAR(seconds_of(m.thin_products, 1, 64, 4e6), 1e-6 + 1e-6, 1e-12);
  EXPECT_NEAR(seconds_of(m.thin_products, 8, 1000, 1e6), 2e-6 + 1e-6, 1e-12);
}

}  // namespace
}  // namespace starattn
