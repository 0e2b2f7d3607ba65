// SPDX-License-Identifier: Apache-2.0
#include "star/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/json.h"

namespace starattn {
namespace {

constexpr const char* kFormat = "starattn machine";
constexpr std::int64_t kVersion = 2;  // 1 has no in_layer, block_start, experts and FP8
constexpr std::int64_t kMost = std::int64_t{1} << 40;
// Of any machine; beyond them seconds could no longer be added up.
constexpr double kLeastRate = 1, kMostRate = 1e24;  // a second
constexpr double kMostStart = 1e6;                  // seconds
constexpr double kMostTimes = 1e3;                  // of what parts take by themselves
constexpr JsonLimits kLimits{.max_bytes = std::size_t{1} << 20, .max_depth = 8};

// Where a size lies between two that were measured: 0 at the first, 1 at the second.
struct Between {
  std::int64_t first = 0;
  std::int64_t second = 0;
  double share = 0;
};

Between between(const std::set<std::int64_t>& sizes, std::int64_t size) {
  const auto above = sizes.lower_bound(size);
  if (above == sizes.end()) return {*sizes.rbegin(), *sizes.rbegin(), 0};
  if (*above == size || above == sizes.begin()) return {*above, *above, 0};
  const std::int64_t below = *std::prev(above);
  const auto log = [](std::int64_t n) { return std::log(static_cast<double>(n)); };
  return {below, *above, (log(size) - log(below)) / (log(*above) - log(below))};
}

double mix(double first, double second, double share) {
  return std::exp((1 - share) * std::log(first) + share * std::log(second));
}

// The value at (x, y) of what was measured over a whole grid of sizes.
template <typename T, typename Value>
double over_grid(const std::vector<T>& measured, std::int64_t T::*x_of, std::int64_t T::*y_of,
                 std::int64_t x, std::int64_t y, const Value& value) {
  std::set<std::int64_t> xs, ys;
  for (const T& entry : measured) {
    xs.insert(entry.*x_of);
    ys.insert(entry.*y_of);
  }
  const auto at = [&](std::int64_t a, std::int64_t b) {
    for (const T& entry : measured)
      if (entry.*x_of == a && entry.*y_of == b) return value(entry);
    fail(Exit::bug, "a machine without an entry for sizes {} and {}", a, b);
  };
  const Between in_x = between(xs, x);
  const Between in_y = between(ys, y);
  return mix(mix(at(in_x.first, in_y.first), at(in_x.first, in_y.second), in_y.share),
             mix(at(in_x.second, in_y.first), at(in_x.second, in_y.second), in_y.share),
             in_x.share);
}

// --- the file

double rate(const JsonObject& object, const char* key) {
  const double value = object.get_number(key);
  if (value < kLeastRate || value > kMostRate)
    fail(Exit::bad_data, "{}: {}: expected a number from {} to {}, got {}", object.where(), key,
         kLeastRate, kMostRate, value);
  return value;
}

std::int64_t size_at(const JsonObject& object, const char* key) {
  return object.get_int(key, 1, kMost);
}

ByteTime line_of(const JsonObject& object) {
  const double start = object.get_number("start_s");
  if (start < 0 || start > kMostStart)
    fail(Exit::bad_data, "{}: start_s: expected 0 to {}, got {}", object.where(), kMostStart,
         start);
  return {start, rate(object, "bytes_per_s")};
}

std::optional<ByteTime> find_line(const JsonObject& object, const char* key) {
  if (!object.has(key)) return std::nullopt;
  return line_of(object.get_object(key));
}

template <typename T, typename Read>
std::vector<T> list_of(const JsonObject& object, const char* key, const Read& read) {
  const Json& list = object.get(key);
  if (!list.is_array() || list.empty())
    fail(Exit::bad_data, "{}: {}: expected a list that is not empty", object.where(), key);
  std::vector<T> all;
  for (const Json& entry : list)
    all.push_back(
        read(JsonObject(entry, fmt::format("{}: {}[{}]", object.where(), key, all.size()))));
  return all;
}

// Each size of one kind with each of the other, once.
template <typename T>
void require_grid(const JsonObject& object, const char* key, const std::vector<T>& all,
                  std::int64_t T::*x_of, std::int64_t T::*y_of) {
  std::set<std::int64_t> xs, ys;
  std::set<std::pair<std::int64_t, std::int64_t>> both;
  for (const T& entry : all) {
    xs.insert(entry.*x_of);
    ys.insert(entry.*y_of);
    both.emplace(entry.*x_of, entry.*y_of);
  }
  if (both.size() != all.size() || both.size() != xs.size() * ys.size())
    fail(Exit::bad_data, "{}: {}: expected each size with each other, {} x {} entries, got {}",
         object.where(), key, xs.size(), ys.size(), all.size());
}

std::vector<Machine::Thin> thin_of(const JsonObject& object, const char* key) {
  auto all = list_of<Machine::Thin>(object, key, [](const JsonObject& entry) {
    return Machine::Thin{size_at(entry, "rows"), entry.get_int("length", 0, kMost), line_of(entry)};
  });
  require_grid(object, key, all, &Machine::Thin::n_rows, &Machine::Thin::length);
  return all;
}

std::vector<Machine::InLayer> in_layer_of(const JsonObject& object) {
  const auto times = [](const JsonObject& entry, const char* key) {
    const double value = entry.get_number(key);
    if (value < 1 / kMostTimes || value > kMostTimes)
      fail(Exit::bad_data, "{}: {}: expected {} to {}, got {}", entry.where(), key, 1 / kMostTimes,
           kMostTimes, value);
    return value;
  };
  return list_of<Machine::InLayer>(object, "in_layer", [&](const JsonObject& entry) {
    return Machine::InLayer{size_at(entry, "hidden_size"), times(entry, "products"),
                            times(entry, "attention")};
  });
}

Machine::Experts experts_of(const JsonObject& object) {
  return {list_of<Machine::Expert>(
              object, "products",
              [](const JsonObject& entry) {
                return Machine::Expert{size_at(entry, "expert_size"), rate(entry, "flops_per_s")};
              }),
          thin_of(object, "thin")};
}

double seconds_at(const JsonObject& object, const char* key) {
  const double value = object.get_number(key);
  if (value < 0 || value > kMostStart)
    fail(Exit::bad_data, "{}: {}: expected 0 to {}, got {}", object.where(), key, kMostStart,
         value);
  return value;
}

std::vector<Machine::Group> groups_of(const JsonObject& object) {
  auto groups = list_of<Machine::Group>(object, "groups", [](const JsonObject& entry) {
    return Machine::Group{
        entry.get_int("ranks", 2, 1 << 20),
        in_layer_of(entry).front(),
        thin_of(entry, "thin_layers"),
        thin_of(entry, "next_tokens"),
        entry.has("parts") ? thin_of(entry, "parts") : std::vector<Machine::Thin>{},
        seconds_at(entry, "copy_s_a_byte"),
        line_of(entry.get_object("recall_wait"))};
  });
  const auto not_above = [](const Machine::Group& a, const Machine::Group& b) {
    return a.n_ranks >= b.n_ranks;
  };
  if (std::ranges::adjacent_find(groups, not_above) != groups.end())
    fail(Exit::bad_data, "{}: groups: expected ascending ranks", object.where());
  return groups;
}

Json json_of(const std::vector<Machine::InLayer>& all) {
  Json list = Json::array();
  for (const auto& [hidden_size, products, attention] : all)
    list.push_back(
        {{"hidden_size", hidden_size}, {"products", products}, {"attention", attention}});
  return list;
}

Json json_of(const ByteTime& line) {
  return {{"start_s", line.start_s}, {"bytes_per_s", line.bytes_per_s}};
}

Json json_of(const std::vector<Machine::Thin>& all) {
  Json list = Json::array();
  for (const auto& [n_rows, length, line] : all)
    list.push_back({{"rows", n_rows},
                    {"length", length},
                    {"start_s", line.start_s},
                    {"bytes_per_s", line.bytes_per_s}});
  return list;
}

Json json_of(const std::vector<Machine::Group>& groups) {
  Json list = Json::array();
  for (const Machine::Group& group : groups) {
    Json entry = {{"ranks", group.n_ranks},
                  {"in_layer", json_of(std::vector{group.in_layer})},
                  {"thin_layers", json_of(group.thin_layers)},
                  {"next_tokens", json_of(group.next_tokens)},
                  {"copy_s_a_byte", group.copy_s_a_byte},
                  {"recall_wait", json_of(group.recall_wait)}};
    if (!group.parts.empty()) entry["parts"] = json_of(group.parts);
    list.push_back(entry);
  }
  return list;
}

Json json_of(const Machine::Experts& experts) {
  Json products = Json::array();
  for (const auto& [expert_size, flops] : experts.products)
    products.push_back({{"expert_size", expert_size}, {"flops_per_s", flops}});
  return {{"products", products}, {"thin", json_of(experts.thin)}};
}

}  // namespace

double Machine::product_rate(std::int64_t n_in, std::int64_t n_out) const {
  return over_grid(products, &Product::n_in, &Product::n_out, n_in, n_out,
                   [](const Product& product) { return product.flops_per_s; });
}

double Machine::attention_rate(std::int64_t head_dim, std::int64_t n_keys) const {
  // The nearest head_dim: kernels differ by it, and nothing lies between two of them.
  const Attention& nearest = *std::ranges::min_element(
      attention, {}, [&](const Attention& entry) { return std::abs(entry.head_dim - head_dim); });
  std::set<std::int64_t> sizes;
  for (const Attention& entry : attention)
    if (entry.head_dim == nearest.head_dim) sizes.insert(entry.n_keys);
  const auto rate = [&](std::int64_t size) {
    return std::ranges::find_if(attention,
                                [&](const Attention& entry) {
                                  return entry.head_dim == nearest.head_dim && entry.n_keys == size;
                                })
        ->flops_per_s;
  };
  const Between keys = between(sizes, n_keys);
  return mix(rate(keys.first), rate(keys.second), keys.share);
}

double expert_rate(const Machine::Experts& experts, std::int64_t expert_size) {
  const auto at = [&](std::int64_t size) {
    return std::ranges::find(experts.products, size, &Machine::Expert::expert_size)->flops_per_s;
  };
  std::set<std::int64_t> sizes;
  for (const Machine::Expert& entry : experts.products) sizes.insert(entry.expert_size);
  const Between sides = between(sizes, expert_size);
  return mix(at(sides.first), at(sides.second), sides.share);
}

Machine::InLayer in_layer_of(const std::vector<Machine::InLayer>& measured,
                             std::int64_t hidden_size) {
  if (measured.empty()) return {hidden_size};
  const auto at = [&](std::int64_t size) {
    return *std::ranges::find(measured, size, &Machine::InLayer::hidden_size);
  };
  std::set<std::int64_t> sizes;
  for (const Machine::InLayer& entry : measured) sizes.insert(entry.hidden_size);
  const Between sides = between(sizes, hidden_size);
  const Machine::InLayer first = at(sides.first), second = at(sides.second);
  return {hidden_size, mix(first.products, second.products, sides.share),
          mix(first.attention, second.attention, sides.share)};
}

const Machine::Group* group_of(const Machine& machine, std::int64_t n_ranks) {
  const auto& groups = machine.groups;
  if (groups.empty()) return nullptr;
  const auto at = std::ranges::lower_bound(groups, n_ranks, {}, &Machine::Group::n_ranks);
  return at == groups.end() ? &groups.back() : &*at;
}

Machine with_f8_kv(Machine machine) {
  if (!machine.f8_kv) {
    fail(Exit::unfit,
         "no times for --kv-dtype fp8: the machine file has no rates of keys and values in FP8. "
         "Make it again with bench --calibrate, or leave out --machine");
  }
  machine.has_f8_kv = true;
  machine.thin_attention = machine.f8_kv->thin_attention;
  return machine;
}

double seconds_of(const std::vector<Machine::Thin>& measured, std::int64_t n_rows,
                  std::int64_t length, double n_bytes) {
  return over_grid(measured, &Machine::Thin::n_rows, &Machine::Thin::length, n_rows, length,
                   [&](const Machine::Thin& thin) { return thin.line.seconds(n_bytes); });
}

Machine read_machine(const std::string& path) {
  const Json json = read_json_file(path, kLimits);
  const JsonObject file(json, path);
  if (file.get_string("format") != kFormat)
    fail(Exit::bad_data, "{}: format: expected '{}'; bench --calibrate makes such files", path,
         kFormat);
  const std::int64_t version = file.get_int("version", 1, kVersion);
  Machine m;
  m.name = file.get_string("name");
  m.date = file.find_string("date").value_or("");
  m.dtype = dtype_from_name(file.get_string("dtype"));
  m.chunk_rows = size_at(file, "chunk_rows");
  m.n_ranks = static_cast<int>(file.get_int("ranks", 1, 1 << 20));
  m.reference_flops_per_s = rate(file, "reference_flops_per_s");
  m.products = list_of<Machine::Product>(file, "products", [](const JsonObject& entry) {
    return Machine::Product{size_at(entry, "inputs"), size_at(entry, "outputs"),
                            rate(entry, "flops_per_s")};
  });
  m.attention = list_of<Machine::Attention>(file, "attention", [](const JsonObject& entry) {
    return Machine::Attention{size_at(entry, "head_dim"), size_at(entry, "keys"),
                              rate(entry, "flops_per_s")};
  });
  m.row_bytes_per_s = rate(file, "row_bytes_per_s");
  m.scoring_flops_per_s = rate(file, "scoring_flops_per_s");
  m.likeness_bytes_per_s = rate(file, "likeness_bytes_per_s");
  m.best_of_keys_per_s = rate(file, "best_of_keys_per_s");
  m.thin_layers = thin_of(file, "thin_layers");
  m.thin_products = thin_of(file, "thin_products");
  m.thin_attention = thin_of(file, "thin_attention");
  m.thin_merges = thin_of(file, "thin_merges");
  m.next_tokens = thin_of(file, "next_tokens");
  m.message = find_line(file, "message");
  m.step = find_line(file, "step");
  m.peer = find_line(file, "peer");
  m.network = find_line(file, "network");
  if (file.has("bus_bytes_per_s")) m.bus_bytes_per_s = rate(file, "bus_bytes_per_s");
  require_grid(file, "products", m.products, &Machine::Product::n_in, &Machine::Product::n_out);
  if (version == 1) return m;
  m.in_layer = in_layer_of(file);
  m.block_start = find_line(file, "block_start");
  if (file.has("experts")) m.experts = experts_of(file.get_object("experts"));
  if (file.has("f8_weights")) {
    const JsonObject f8 = file.get_object("f8_weights");
    m.f8_weights = {in_layer_of(f8), thin_of(f8, "thin_layers"), std::nullopt};
    if (f8.has("experts")) m.f8_weights->experts = experts_of(f8.get_object("experts"));
  }
  if (file.has("f8_kv")) {
    const JsonObject f8 = file.get_object("f8_kv");
    m.f8_kv = {in_layer_of(f8), thin_of(f8, "thin_attention")};
  }
  if (file.has("groups")) m.groups = groups_of(file);
  return m;
}

std::string to_text(const Machine& m) {
  Json products = Json::array();
  for (const Machine::Product& entry : m.products)
    products.push_back(
        {{"inputs", entry.n_in}, {"outputs", entry.n_out}, {"flops_per_s", entry.flops_per_s}});
  Json attention = Json::array();
  for (const Machine::Attention& entry : m.attention)
    attention.push_back(
        {{"head_dim", entry.head_dim}, {"keys", entry.n_keys}, {"flops_per_s", entry.flops_per_s}});
  Json file = {{"format", kFormat},
               {"version", kVersion},
               {"name", m.name},
               {"date", m.date},
               {"dtype", name_of(m.dtype)},
               {"chunk_rows", m.chunk_rows},
               {"ranks", m.n_ranks},
               {"reference_flops_per_s", m.reference_flops_per_s},
               {"products", products},
               {"attention", attention},
               {"row_bytes_per_s", m.row_bytes_per_s},
               {"scoring_flops_per_s", m.scoring_flops_per_s},
               {"likeness_bytes_per_s", m.likeness_bytes_per_s},
               {"best_of_keys_per_s", m.best_of_keys_per_s},
               {"thin_layers", json_of(m.thin_layers)},
               {"thin_products", json_of(m.thin_products)},
               {"thin_attention", json_of(m.thin_attention)},
               {"thin_merges", json_of(m.thin_merges)},
               {"next_tokens", json_of(m.next_tokens)}};
  if (m.message) file["message"] = json_of(*m.message);
  if (m.step) file["step"] = json_of(*m.step);
  if (m.peer) file["peer"] = json_of(*m.peer);
  if (m.network) file["network"] = json_of(*m.network);
  if (m.bus_bytes_per_s) file["bus_bytes_per_s"] = *m.bus_bytes_per_s;
  file["in_layer"] = json_of(m.in_layer);
  if (m.block_start) file["block_start"] = json_of(*m.block_start);
  if (m.experts) file["experts"] = json_of(*m.experts);
  if (m.f8_weights)
    file["f8_weights"] = {{"in_layer", json_of(m.f8_weights->in_layer)},
                          {"thin_layers", json_of(m.f8_weights->thin_layers)}};
  if (m.f8_weights && m.f8_weights->experts)
    file["f8_weights"]["experts"] = json_of(*m.f8_weights->experts);
  if (m.f8_kv)
    file["f8_kv"] = {{"in_layer", json_of(m.f8_kv->in_layer)},
                     {"thin_attention", json_of(m.f8_kv->thin_attention)}};
  if (!m.groups.empty()) file["groups"] = json_of(m.groups);
  return file.dump(2) + "\n";
}

}  // namespace starattn
