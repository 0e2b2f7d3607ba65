// SPDX-License-Identifier: Apache-2.0
// The body of kernels.h for one instruction set. The including file defines STARATTN_LANES (floats
// a vector), STARATTN_ROWS x STARATTN_VECTORS (the register tile of multiply) and the namespace
// around.

using Vec = float __attribute__((vector_size(STARATTN_LANES * 4)));
using Int = std::int32_t __attribute__((vector_size(STARATTN_LANES * 4)));
using Half = std::uint16_t __attribute__((vector_size(STARATTN_LANES * 2)));

constexpr std::int64_t kLanes = STARATTN_LANES;

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
inline void store(float* to, Vec v) {
  std::memcpy(to, &v, sizeof(v));
}
inline Vec broadcast(float x) {
  return x - Vec{};
}

// a * b + c. These files are compiled with -ffp-contract=fast: one rounding where the target has
// FMA, two elsewhere, and always the same for one target.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
  return a * b + c;
}

// One register tile: Rows x (Vectors * lanes) of c.
template <int Rows, int Vectors>
inline void tile(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                 std::int64_t ldc, std::int64_t k, bool add) {
  Vec sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) sum[i][j] = add ? load(c + i * ldc + j * kLanes) : Vec{};
  }
  for (std::int64_t p = 0; p < k; ++p) {
    Vec right[Vectors];
    for (int j = 0; j < Vectors; ++j) right[j] = load(b + p * ldb + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const Vec left = broadcast(a[i * lda + p]);
      for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) store(c + i * ldc + j * kLanes, sum[i][j]);
  }
}

template <int Vectors>
inline void column(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                   std::int64_t ldc, std::int64_t m, std::int64_t k, bool add) {
  std::int64_t i = 0;
  for (; i + STARATTN_ROWS <= m; i += STARATTN_ROWS) {
    tile<STARATTN_ROWS, Vectors>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, add);
  }
  for (; i + 4 <= m; i += 4) tile<4, Vectors>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, add);
  for (; i + 2 <= m; i += 2) tile<2, Vectors>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, add);
  for (; i < m; ++i) tile<1, Vectors>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, add);
}

void multiply(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
              std::int64_t ldc, std::int64_t m, std::int64_t n, std::int64_t k, bool add) {
  std::int64_t j = 0;
  constexpr std::int64_t kWide = STARATTN_VECTORS * kLanes;
  for (; j + kWide <= n; j += kWide)
    column<STARATTN_VECTORS>(a, lda, b + j, ldb, c + j, ldc, m, k, add);
  for (; j + kLanes <= n; j += kLanes) column<1>(a, lda, b + j, ldb, c + j, ldc, m, k, add);
}

template <Dtype kDtype>
inline Vec load_weights(const std::byte* from) {
  if constexpr (kDtype == Dtype::f32) {
    Vec v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  } else {
    Half half;
    std::memcpy(&half, from, sizeof(half));
    if constexpr (kDtype == Dtype::bf16) {
      return std::bit_cast<Vec>(__builtin_convertvector(half, Int) << 16);
    } else {
      // f16: shift exponent and mantissa into place and let a multiplication rebias (exact,
      // subnormals too).
      const Int bits = __builtin_convertvector(half, Int);
      const Int magnitude = (bits & 0x7fff) << 13;
      const Vec scaled = std::bit_cast<Vec>(magnitude) * broadcast(0x1p112F);
      const Int is_special =
          magnitude >= (0x7c00 << 13);  // infinity or NaN keeps its exponent of ones
      const Int finite = std::bit_cast<Int>(scaled);
      const Int special = magnitude | 0x7f800000;
      const Int value = (is_special & special) | (~is_special & finite);
      return std::bit_cast<Vec>(value | ((bits & 0x8000) << 16));
    }
  }
}

inline float weight_at(const std::byte* from, Dtype dtype) {
  if (dtype == Dtype::f32) {
    float value;
    std::memcpy(&value, from, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, from, 2);
  return dtype == Dtype::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

inline float sum_lanes(Vec v) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  }
  return v[0];
}

// Rows x Columns dot products that share their loads. Each keeps one vector of partial sums.
template <Dtype kDtype, int Rows, int Columns>
inline void dots(const float* x, std::int64_t ldx, const std::byte* w, std::int64_t ldw,
                 std::int64_t k, float* y, std::int64_t ldy) {
  constexpr auto kBytes = static_cast<std::int64_t>(size_of(kDtype));
  Vec sum[Rows][Columns] = {};
  std::int64_t p = 0;
  for (; p + kLanes <= k; p += kLanes) {
    Vec right[Columns];
    for (int j = 0; j < Columns; ++j) right[j] = load_weights<kDtype>(w + (j * ldw + p) * kBytes);
    for (int i = 0; i < Rows; ++i) {
      const Vec left = load(x + i * ldx + p);
      for (int j = 0; j < Columns; ++j) sum[i][j] = multiply_add(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Columns; ++j) {
      float total = sum_lanes(sum[i][j]);
      for (std::int64_t rest = p; rest < k; ++rest) {
        total += x[i * ldx + rest] * weight_at(w + (j * ldw + rest) * kBytes, kDtype);
      }
      y[i * ldy + j] = total;
    }
  }
}

template <Dtype kDtype>
void dot_rows_of(const float* x, std::int64_t ldx, std::int64_t m, const std::byte* w,
                 std::int64_t ldw, std::int64_t n, std::int64_t k, float* y, std::int64_t ldy) {
  constexpr auto kBytes = static_cast<std::int64_t>(size_of(kDtype));
  std::int64_t j = 0;
  for (; j + 4 <= n; j += 4) {
    const std::byte* columns = w + j * ldw * kBytes;
    std::int64_t i = 0;
    for (; i + 4 <= m; i += 4)
      dots<kDtype, 4, 4>(x + i * ldx, ldx, columns, ldw, k, y + i * ldy + j, ldy);
    for (; i < m; ++i) dots<kDtype, 1, 4>(x + i * ldx, ldx, columns, ldw, k, y + i * ldy + j, ldy);
  }
  for (; j < n; ++j) {
    for (std::int64_t i = 0; i < m; ++i) {
      dots<kDtype, 1, 1>(x + i * ldx, ldx, w + j * ldw * kBytes, ldw, k, y + i * ldy + j, ldy);
    }
  }
}

void dot_rows(const float* x, std::int64_t ldx, std::int64_t m, const std::byte* w,
              std::int64_t ldw, Dtype dtype, std::int64_t n, std::int64_t k, float* y,
              std::int64_t ldy) {
  switch (dtype) {
    case Dtype::f32:
      return dot_rows_of<Dtype::f32>(x, ldx, m, w, ldw, n, k, y, ldy);
    case Dtype::f16:
      return dot_rows_of<Dtype::f16>(x, ldx, m, w, ldw, n, k, y, ldy);
    case Dtype::bf16:
      return dot_rows_of<Dtype::bf16>(x, ldx, m, w, ldw, n, k, y, ldy);
    case Dtype::f8:  // has been widened (linear.cpp)
      break;
  }
}

// e^x for x <= 0: 2^n e^r with |r| <= ln 2 / 2 and a polynomial of degree 6 for e^r (relative error
// below 2e-7). Under -87.3 the result would be subnormal: it is 0.
inline Vec exponential(Vec x) {
  constexpr float kLog2e = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const Int vanishes = x < broadcast(-87.0F);
  const Int ones = vanishes;
  const Vec clamped = std::bit_cast<Vec>((ones & std::bit_cast<Int>(broadcast(-87.0F))) |
                                         (~ones & std::bit_cast<Int>(x)));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Vec shifted = multiply_add(clamped, broadcast(kLog2e), broadcast(12582912.0F));
  const Vec n = shifted - broadcast(12582912.0F);
  Vec r = multiply_add(n, broadcast(-kLn2High), clamped);
  r = multiply_add(n, broadcast(-kLn2Low), r);
  Vec p = broadcast(1.0F / 720);
  p = multiply_add(p, r, broadcast(1.0F / 120));
  p = multiply_add(p, r, broadcast(1.0F / 24));
  p = multiply_add(p, r, broadcast(1.0F / 6));
  p = multiply_add(p, r, broadcast(0.5F));
  p = multiply_add(p, r, broadcast(1.0F));
  p = multiply_add(p, r, broadcast(1.0F));
  const Int scale = (std::bit_cast<Int>(shifted) - std::bit_cast<Int>(broadcast(12582912.0F)) + 127)
                    << 23;
  const Vec result = p * std::bit_cast<Vec>(scale);
  return std::bit_cast<Vec>(~ones & std::bit_cast<Int>(result));
}

float exponentials(float* s, std::int64_t n, std::int64_t n_visible, float scale, float max) {
  Vec sum{};
  const Vec factor = broadcast(scale);
  const Vec top = broadcast(-max);
  std::int64_t i = 0;
  for (; i + kLanes <= n_visible; i += kLanes) {
    const Vec e = exponential(load(s + i) * factor + top);
    sum += e;
    store(s + i, e);
  }
  if (i < n_visible) {
    Vec e = exponential(load(s + i) * factor + top);
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      if (i + lane >= n_visible) e[lane] = 0;
    }
    sum += e;
    store(s + i, e);
    i += kLanes;
  }
  for (; i < n; i += kLanes) store(s + i, Vec{});
  return sum_lanes(sum);
}

float maximum(const float* s, std::int64_t n) {
  float top = -INFINITY;
  std::int64_t i = 0;
  if (n >= kLanes) {
    Vec best = load(s);
    for (i = kLanes; i + kLanes <= n; i += kLanes) {
      const Vec next = load(s + i);
      best = next > best ? next : best;
    }
    for (int lane = 0; lane < kLanes; ++lane) top = best[lane] > top ? best[lane] : top;
  }
  for (; i < n; ++i) top = s[i] > top ? s[i] : top;
  return top;
}

void widen(const std::byte* from, Dtype dtype, std::int64_t n, float* to) {
  const auto width = static_cast<std::int64_t>(size_of(dtype));
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const std::byte* at = from + i * width;
    store(to + i, dtype == Dtype::bf16  ? load_weights<Dtype::bf16>(at)
                  : dtype == Dtype::f16 ? load_weights<Dtype::f16>(at)
                                        : load_weights<Dtype::f32>(at));
  }
  for (; i < n; ++i) to[i] = weight_at(from + i * width, dtype);
}

// Four places higher, bits of e4m3 are those of a number of fp32 that is 2^120 times smaller,
// subnormal ones as well.
void widen_f8(const std::byte* from, float scale, std::int64_t n, float* to) {
  using Bytes = std::uint8_t __attribute__((vector_size(STARATTN_LANES)));
  const auto widened = [&](Int bits) {
    const Int magnitude = bits & 0x7f;
    const Vec small = std::bit_cast<Vec>((bits & 0x80) << 24 | magnitude << 20);
    return magnitude == 0x7f ? broadcast(NAN) : small * broadcast(0x1p120F) * broadcast(scale);
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Bytes bytes;
    std::memcpy(&bytes, from + i, sizeof(bytes));
    const Half wider = __builtin_convertvector(bytes, Half);  // GCC goes one by one in one step
    store(to + i, widened(__builtin_convertvector(wider, Int)));
  }
  for (; i < n; ++i) to[i] = widened(Int{} + std::to_integer<std::int32_t>(from[i]))[0];
}

void swiglu(const float* gate, const float* up, std::int64_t n, float* y) {
  const auto silu_times = [](Vec g, Vec u) {
    const Int negative = g < Vec{};
    const Vec magnitude = negative ? g : -g;  // -|g|
    const Vec e = exponential(magnitude);     // in (0, 1]: never overflows
    const Vec one = broadcast(1.0F);
    return g * u * ((negative ? e : one) / (one + e));
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, silu_times(load(gate + i), load(up + i)));
  for (; i < n; ++i) y[i] = silu_times(broadcast(gate[i]), broadcast(up[i]))[0];
}
