// SPDX-License-Identifier: Apache-2.0
// The CPU backend, the specification of every operation: fp32 throughout, weights as they are on
// disk.
#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attend.h"
#include "backend/cpu/experts.h"
#include "backend/cpu/f8.h"
#include "backend/cpu/finite.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/recall.h"
#include "backend/cpu/thread_pool.h"
#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::int64_t kRowsPerTask = 16;

float* floats(Rows x) {
  return reinterpret_cast<float*>(x.data);
}

// (i, i + n_pairs), each by its angle.
void rotate_pairs(float* x, std::int64_t n_pairs, const float* cos, const float* sin) {
  for (std::int64_t i = 0; i < n_pairs; ++i) {
    const float a = x[i];
    const float b = x[i + n_pairs];
    x[i] = a * cos[i] - b * sin[i];
    x[i + n_pairs] = b * cos[i] + a * sin[i];
  }
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int n_threads)
      : pool_(std::max(1, n_threads)), kernels_(cpu::best_kernels()) {
    openblas_set_num_threads(1);  // its own threads would make bits depend on their number
  }

  std::string describe() const override {
    return fmt::format("CPU, {} thread(s), {}", pool_.n_threads(), kernels_.name);
  }
  Dtype activation_dtype() const override { return Dtype::f32; }
  void check_model(const ModelShape& model) const override {
    if (model.attention.head_dim % cpu::kHeadDimUnit != 0) {
      fail(Exit::unfit,
           "the CPU backend takes head dims that are multiples of {}; this model's is {}",
           cpu::kHeadDimUnit, model.attention.head_dim);
    }
  }

  // In front of the memory stands how much it is, for the counter.
  Buffer allocate(std::size_t n_bytes) override {
    constexpr std::size_t kAlignment = 64;
    const std::size_t rounded =
        (std::max<std::size_t>(n_bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, kAlignment + rounded));
    if (!memory) {
      const auto free = static_cast<std::uint64_t>(::sysconf(_SC_AVPHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
      fail(Exit::unfit,
           "out of memory: {} asked for, {} free. Use more ranks or a smaller --block-size",
           human_bytes(rounded), human_bytes(free));
    }
    std::memcpy(memory, &rounded, sizeof(rounded));
    taken_ += rounded;
    peak_ = std::max(peak_, taken_);
    return {memory + kAlignment, n_bytes,
            [](void* data, void* backend) {
              std::byte* begin = static_cast<std::byte*>(data) - kAlignment;
              std::size_t size = 0;
              std::memcpy(&size, begin, sizeof(size));
              static_cast<CpuBackend*>(backend)->taken_ -= size;
              std::free(begin);
            },
            this};
  }
  std::uint64_t peak_bytes() const override { return peak_; }
  void upload(std::span<const std::byte> host, std::byte* device) override {
    if (!host.empty()) std::memcpy(device, host.data(), host.size());
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    if (!host.empty()) std::memcpy(host.data(), device, host.size());
  }
  void synchronize(const std::function<void()>&) override {}

  void embed(const Token* tokens, const WeightView& table, Rows x) override {
    for_rows(x.n_rows, [&](std::int64_t row) {
      const auto token = static_cast<std::size_t>(std::max(0, tokens[row]));
      const std::byte* from =
          table.data + token * static_cast<std::size_t>(table.n_cols) * size_of(table.dtype);
      kernels_.widen(from, table.dtype, x.width, floats(x) + row * x.width);
    });
  }

  void rms_norm(Rows x, const WeightView& weight, double eps, Rows y, Reader) override {
    STARATTN_CHECK(weight.n_cols == x.width && y.width == x.width && y.n_rows == x.n_rows);
    std::vector<float> scale(static_cast<std::size_t>(x.width));
    kernels_.widen(weight.data, weight.dtype, x.width, scale.data());
    for_rows(x.n_rows, [&](std::int64_t row) {
      const float* in = floats(x) + row * x.width;
      float* out = floats(y) + row * x.width;
      const float mean = sum_of_squares(in, x.width) / static_cast<float>(x.width);
      const float factor =
          std::isfinite(mean) ? 1.0F / std::sqrt(mean + static_cast<float>(eps)) : NAN;
      for (std::int64_t i = 0; i < x.width; ++i)
        out[i] = scale[static_cast<std::size_t>(i)] * (in[i] * factor);
    });
  }

  void linear(Rows x, const Projection& to, Product product) override {
    if (product == Product::chunk) {
      std::vector<float> memory;
      if (rounds_rows() && to.w.dtype == Dtype::f8) x = cpu::rounded_rows(pool_, x, memory);
      cpu::linear_chunk(pool_, kernels_, x, to.w, to.bias, to.y);
    } else {
      cpu::linear_thin(pool_, kernels_, x, to.w, to.bias, to.y);
    }
  }

  void linear_f32(Rows x, const WeightView& w, float* y) override {
    const Rows rows{reinterpret_cast<std::byte*>(y), x.n_rows, w.n_rows};
    linear(x, {w, WeightView{}, rows}, Product::batch_invariant);
  }
  void draw_tokens(float* logits, std::int64_t n_values, std::span<const Draw> draws,
                   Token* tokens) override {
    const auto n = static_cast<std::size_t>(n_values);
    for (std::size_t row = 0; row < draws.size(); ++row)
      tokens[row] = next_token(std::span(logits + row * n, n), draws[row]);
  }
  void find_highest(const float* logits, std::int64_t n_values, Token first,
                    std::span<const Draw> draws, Highest* to) override {
    const auto n = static_cast<std::size_t>(n_values);
    for (const Draw& draw : draws) {
      *to++ = highest_of(std::span(logits, n), first, draw.allowed);
      to = std::fill_n(to, kHighestParts - 1, Highest{});  // its only part
      logits += n;
    }
  }
  void choose_highest(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                      Token* tokens) override {
    const auto n = static_cast<std::size_t>(n_parts);
    for (std::size_t row = 0; row < static_cast<std::size_t>(n_rows); ++row)
      tokens[row] = best_of(std::span(parts + row * n, n));
  }
  void copy_columns(Rows x, std::int64_t first, Rows to) override {
    STARATTN_CHECK(first >= 0 && first + to.width <= x.width && to.n_rows == x.n_rows);
    for_rows(x.n_rows, [&](std::int64_t row) {
      std::copy_n(floats(x) + row * x.width + first, to.width, floats(to) + row * to.width);
    });
  }

  void rope(Rows x, const HeadSplit& split, const float* cos, const float* sin) override {
    const std::int64_t n_pairs = split.size / 2, n_rotary = split.rotary / 2;
    STARATTN_CHECK(x.width % split.size == 0);
    for_rows(x.n_rows, [&](std::int64_t row) {
      const float* c = cos + row * n_pairs;
      const float* s = sin + row * n_pairs;
      for (float* head = floats(x) + row * x.width; head < floats(x) + (row + 1) * x.width;
           head += split.size) {
        rotate_pairs(head, n_rotary, c, s);
        rotate_pairs(head + split.rotary, n_pairs - n_rotary, c + n_rotary, s + n_rotary);
      }
    });
  }

  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, Partial context, Rows out) override {
    STARATTN_CHECK(static_cast<std::int64_t>(own.size()) == q.n_rows);
    const std::size_t row_bytes = static_cast<std::size_t>(k.width) * sizeof(float);
    for (std::size_t i = 0; i < own.size(); ++i) {
      const std::size_t at = static_cast<std::size_t>(own[i].n_before) * row_bytes;
      std::memcpy(own[i].k + at, k.data + i * row_bytes, row_bytes);
      std::memcpy(own[i].v + at, v.data + i * row_bytes, row_bytes);
    }
    for (std::size_t i = 0; i < own.size(); ++i) {
      const KvSegment seen{own[i].k, own[i].v, own[i].n_before + 1, false};
      const std::int64_t value = static_cast<std::int64_t>(i) * shape.n_heads;
      attend({q.data + i * static_cast<std::size_t>(q.width) * sizeof(float), 1, q.width},
             {&seen, 1}, shape, Product::batch_invariant,
             {context.o + value * shape.head_dim, context.m + value, context.l + value, 1});
    }
    finish(context, shape, out);
  }

  void narrow(Rows x, std::int64_t head_dim, RawRows to) override {
    const KvLayout layout{Dtype::f8, x.width / head_dim, head_dim};
    STARATTN_CHECK(x.width % head_dim == 0 && to.n_rows == x.n_rows &&
                   to.row_bytes == layout.row_bytes());
    for_rows(x.n_rows, [&](std::int64_t row) {
      auto* bytes =
          reinterpret_cast<std::uint8_t*>(to.data) + static_cast<std::size_t>(row) * to.row_bytes;
      std::fill(bytes + x.width, bytes + to.row_bytes, 0);
      for (std::int64_t head = 0; head < layout.n_heads; ++head) {
        const std::int64_t at = head * head_dim;
        bytes[x.width + head] = to_f8(floats(x) + row * x.width + at, head_dim, bytes + at);
      }
    });
  }

  void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
              Product product, Partial partial) override {
    cpu::attend(pool_, kernels_, q, segments, shape, product, partial);
  }

  void clear(Partial partial, const AttentionShape& shape) override {
    const std::int64_t n = partial.n_rows * shape.n_heads;
    std::fill_n(partial.o, n * shape.head_dim, 0.0F);
    std::fill_n(partial.m, n, -std::numeric_limits<float>::infinity());
    std::fill_n(partial.l, n, 0.0F);
  }

  void merge(Partial into, Partial from, const AttentionShape& shape) override {
    STARATTN_CHECK(into.n_rows == from.n_rows);
    const std::int64_t d = shape.head_dim;
    for (std::int64_t i = 0; i < into.n_rows * shape.n_heads; ++i) {
      cpu::merge_row(into.o + i * d, into.m[i], into.l[i], from.o + i * d, from.m[i], from.l[i], d);
    }
  }

  void merge_sinks(Partial partial, const WeightView& sinks, const AttentionShape& shape) override {
    STARATTN_CHECK(sinks.n_rows == 1 && sinks.n_cols == shape.n_heads);
    std::vector<float> scores(static_cast<std::size_t>(shape.n_heads));
    kernels_.widen(sinks.data, sinks.dtype, shape.n_heads, scores.data());
    const std::vector<float> nothing(static_cast<std::size_t>(shape.head_dim), 0.0F);
    const std::int64_t d = shape.head_dim;
    for_rows(partial.n_rows * shape.n_heads, [&](std::int64_t i) {
      cpu::merge_row(partial.o + i * d, partial.m[i], partial.l[i], nothing.data(),
                     scores[static_cast<std::size_t>(i % shape.n_heads)], 1, d);
    });
  }

  void finish(Partial partial, const AttentionShape& shape, Rows out) override {
    STARATTN_CHECK(out.width == shape.n_heads * shape.head_dim && out.n_rows == partial.n_rows);
    for_rows(partial.n_rows * shape.n_heads,
             [&](std::int64_t i) { finish_row(partial, i, shape.head_dim, out); });
  }

  void finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out) override {
    const std::int64_t d = shape.head_dim;
    STARATTN_CHECK(a.n_rows == b.n_rows && out.n_rows == a.n_rows);
    STARATTN_CHECK(out.width == shape.n_heads * d);
    for_rows(a.n_rows * shape.n_heads, [&](std::int64_t i) {
      cpu::merge_row(a.o + i * d, a.m[i], a.l[i], b.o + i * d, b.m[i], b.l[i], d);
      finish_row(a, i, d, out);
    });
  }

  void add(Rows x, Rows y) override {
    for_rows(x.n_rows, [&](std::int64_t row) {
      float* out = floats(x) + row * x.width;
      const float* in = floats(y) + row * x.width;
      for (std::int64_t i = 0; i < x.width; ++i) out[i] += in[i];
    });
  }

  void scale(Rows x, float factor) override {
    for_rows(x.n_rows, [&](std::int64_t row) {
      float* values = floats(x) + row * x.width;
      for (std::int64_t i = 0; i < x.width; ++i) values[i] *= factor;
    });
  }

  void scale_by_gate(Rows x, Rows by, const WeightView& gate) override {
    STARATTN_CHECK(gate.n_rows == 1 && gate.n_cols == by.width && x.n_rows == by.n_rows);
    std::vector<float> products(static_cast<std::size_t>(x.n_rows));
    linear_f32(by, gate, products.data());
    for_rows(x.n_rows, [&](std::int64_t row) {
      const float share = 1 / (1 + std::exp(-products[static_cast<std::size_t>(row)]));
      float* values = floats(x) + row * x.width;
      for (std::int64_t i = 0; i < x.width; ++i) values[i] *= share;
    });
  }

  void choose_experts(Rows x, const Router& router, Product product,
                      const ExpertChoice& choice) override {
    const std::int64_t n_experts = router.w.n_rows;
    STARATTN_CHECK(choice.n_rows == x.n_rows && choice.n_chosen <= n_experts);
    std::vector<float> products(static_cast<std::size_t>(x.n_rows * n_experts));
    const Rows y{reinterpret_cast<std::byte*>(products.data()), x.n_rows, n_experts};
    linear(x, {router.w, router.bias, y}, product);
    if (!router.routing.is_sigmoid)
      return cpu::choose_by_softmax(pool_, products.data(), n_experts, router.routing, choice);
    std::vector<float> correction(static_cast<std::size_t>(n_experts));
    if (router.correction)
      kernels_.widen(router.correction.data, router.correction.dtype, n_experts, correction.data());
    cpu::choose_by_sigmoid(pool_, products.data(), correction, router.routing, choice);
  }
  void gate_experts(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                    const ExpertChoice& choice, Product product, Rows gated) override {
    cpu::gate_experts(pool_, kernels_, normed, experts, unit, choice, product, gated);
  }
  void add_gated_experts(Rows x, Rows gated, std::span<const Expert> experts,
                         const ExpertChoice& choice, Product product) override {
    cpu::add_gated_experts(pool_, kernels_, x, gated, experts, choice, product);
  }

  void choose_asking_rows(const KvSegment& block, const AttentionShape& shape, std::int64_t n_rows,
                          std::int32_t* rows) override {
    STARATTN_CHECK(n_rows >= 1 && n_rows <= block.n_tokens);
    std::vector<float> unlikeness(static_cast<std::size_t>(block.n_tokens));
    cpu::likeness_to_mean(pool_, block, shape, unlikeness.data());
    for (float& value : unlikeness) value = -value;
    std::vector<float> theirs(static_cast<std::size_t>(n_rows));
    cpu::choose_best(unlikeness.data(), block.n_tokens, n_rows, rows, theirs.data());
  }
  void gather_rows(std::span<const RawRows> from, const std::int32_t* rows, RawRows to) override {
    const std::size_t row_bytes = to.row_bytes;
    std::vector<std::int64_t> ends;  // of each part, among all rows
    for (const RawRows& part : from) {
      STARATTN_CHECK(part.row_bytes == row_bytes);
      ends.push_back((ends.empty() ? 0 : ends.back()) + part.n_rows);
    }
    for_rows(to.n_rows, [&](std::int64_t i) {
      const auto end = std::upper_bound(ends.begin(), ends.end(), std::int64_t{rows[i]});
      STARATTN_CHECK(rows[i] >= 0 && end != ends.end());
      const RawRows& part = from[static_cast<std::size_t>(end - ends.begin())];
      const std::int64_t row = rows[i] - (*end - part.n_rows);
      std::memcpy(to.data + static_cast<std::size_t>(i) * row_bytes,
                  part.data + static_cast<std::size_t>(row) * row_bytes, row_bytes);
    });
  }
  void log_sum_exp(Rows q, const KvSegment& first, const KvSegment& second,
                   const AttentionShape& shape, float* z) override {
    cpu::log_sum_exp(pool_, kernels_, q, first, second, shape, z);
  }
  void score_keys(Rows q, const float* z, const KvSegment& keys, const AttentionShape& shape,
                  float* scores) override {
    cpu::score_keys(pool_, kernels_, q, z, keys, shape, scores);
  }
  void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                   std::int32_t* best, float* best_scores) override {
    cpu::choose_best(scores, n_scores, n_best, best, best_scores);
  }

  void swiglu(Rows gate, Rows up, Rows y) override {
    for_rows(gate.n_rows, [&](std::int64_t row) {
      const std::int64_t at = row * gate.width;
      kernels_.swiglu(floats(gate) + at, floats(up) + at, gate.width, floats(y) + at);
    });
  }

  void find_not_finite(Rows x, std::int64_t first, std::int64_t* place) override {
    const std::int64_t found = first_of(x.data, Dtype::f32, x.n_rows * x.width);
    if (found >= 0) *place = std::min(*place, first + found);
  }
  std::int64_t first_not_finite(const WeightView& w, std::int64_t first_row,
                                std::int64_t n_rows) override {
    const std::int64_t first = first_row * w.n_cols;
    const std::int64_t found = first_of(w.data + static_cast<std::size_t>(first) * size_of(w.dtype),
                                        w.dtype, n_rows * w.n_cols);
    return found < 0 ? -1 : first + found;
  }

 private:
  // Of one row and head, number i.
  static void finish_row(const Partial& partial, std::int64_t i, std::int64_t d, Rows out) {
    const float l = partial.l[i];
    for (std::int64_t c = 0; c < d; ++c)
      floats(out)[i * d + c] = l == 0.0F ? 0.0F : partial.o[i * d + c] / l;
  }

  template <typename Work>
  void for_rows(std::int64_t n_rows, const Work& work) {
    pool_.parallel_for((n_rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task, int) {
      const std::int64_t end = std::min(n_rows, (task + 1) * kRowsPerTask);
      for (std::int64_t row = task * kRowsPerTask; row < end; ++row) work(row);
    });
  }

  // Of n values, the place of the first that is not finite, or -1.
  std::int64_t first_of(const std::byte* values, Dtype dtype, std::int64_t n) {
    constexpr std::int64_t kValuesPerTask = std::int64_t{1} << 16;
    std::atomic<std::int64_t> first{n};
    pool_.parallel_for((n + kValuesPerTask - 1) / kValuesPerTask, [&](std::int64_t task, int) {
      const std::int64_t begin = task * kValuesPerTask;
      if (begin > first) return;
      const std::int64_t found =
          cpu::first_not_finite(values + static_cast<std::size_t>(begin) * size_of(dtype), dtype,
                                std::min(kValuesPerTask, n - begin));
      if (found < 0) return;
      std::int64_t least = first;
      while (begin + found < least && !first.compare_exchange_weak(least, begin + found)) {
      }
    });
    return first == n ? -1 : first.load();
  }

  // Sixteen running sums, added up in order: the same on every instruction set.
  static float sum_of_squares(const float* x, std::int64_t n) {
    constexpr std::int64_t kSums = 16;
    float sums[kSums] = {};
    std::int64_t i = 0;
    for (; i + kSums <= n; i += kSums) {
      for (std::int64_t j = 0; j < kSums; ++j) sums[j] += x[i + j] * x[i + j];
    }
    float total = 0;
    for (const float sum : sums) total += sum;
    for (; i < n; ++i) total += x[i] * x[i];
    return total;
  }

  ThreadPool pool_;
  const cpu::Kernels& kernels_;
  std::uint64_t taken_ = 0;  // bytes of all buffers
  std::uint64_t peak_ = 0;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int n_threads) {
  return std::make_unique<CpuBackend>(n_threads);
}

}  // namespace starattn
