// SPDX-License-Identifier: Apache-2.0
// A backend whose operations are recorded computes what it computes without that, and says what it
// did.
#include "backend/timed_backend.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "base/random.h"
#include "late_backend.h"
#include "trace/range.h"
#include "trace/recorder.h"

namespace starattn {
namespace {

constexpr AttentionShape kShape{4, 2, 32};
constexpr std::int64_t kRows = 6, kWidth = 128, kKeys = 40;

class TimedBackendTest : public ::testing::Test {
 protected:
  TimedBackendTest() { trace::recorder().start(/*for_profile=*/true, /*for_trace=*/true); }
  ~TimedBackendTest() override {
    trace::recorder().stop();
    trace::reset();
  }
};

std::vector<float> random(std::int64_t n, std::uint64_t key) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < n; ++i)
    values.push_back(static_cast<float>(random_unit(key, static_cast<std::uint64_t>(i)) - 0.5));
  return values;
}

// A product, attention and its end, as a layer has them.
std::vector<float> computed(Backend& backend) {
  const std::vector<float> x_host = random(kRows * kWidth, 1);
  const std::vector<float> w_host = random(kWidth * kWidth, 2);
  const std::vector<float> kv_host = random(2 * kKeys * kShape.n_kv_heads * kShape.head_dim, 3);
  const RowBuffer x(backend, kRows, kWidth), y(backend, kRows, kWidth);
  const PartialBuffer partial(backend, kRows, kShape);
  const Buffer kv = backend.allocate(kv_host.size() * sizeof(float));
  backend.upload(std::as_bytes(std::span(x_host)), x.rows(kRows).data);
  backend.upload_later(std::as_bytes(std::span(kv_host)), kv.data());
  const WeightView w{reinterpret_cast<const std::byte*>(w_host.data()), Dtype::f32, kWidth, kWidth};
  backend.linear(x.rows(kRows), {w, WeightView{}, y.rows(kRows)}, Product::chunk);
  const KvSegment segment{kv.data(), kv.data() + kv.n_bytes() / 2, kKeys, /*causal=*/true};
  backend.attend_all(y.rows(kRows), {&segment, 1}, kShape, Product::chunk, partial.partial(),
                     x.rows(kRows));
  std::vector<float> result(x_host.size());
  backend.download_rows(x.rows(kRows), result);
  return result;
}

TEST_F(TimedBackendTest, ComputesTheSameBits) {
  const std::unique_ptr<Backend> plain = make_cpu_backend(1);
  const std::unique_ptr<Backend> timed = make_timed_backend(make_cpu_backend(1));
  EXPECT_EQ(computed(*plain), computed(*timed));
  EXPECT_EQ(plain->describe(), timed->describe());
}

TEST_F(TimedBackendTest, KnowsWhatOperationsDo) {
  computed(*make_timed_backend(make_cpu_backend(1)));
  std::map<std::string, trace::Operation> all;
  for (const trace::Operation& one : trace::recorder().operations()) all[one.name] = one;
  EXPECT_EQ(all["project"].flop, 2.0 * kRows * kWidth * kWidth);
  EXPECT_EQ(all["project"].n_bytes, 4.0 * (kWidth * kWidth + 2 * kRows * kWidth));
  // Row i of n sees the first 40 - n + 1 + i keys.
  EXPECT_EQ(all["attention"].flop,
            4.0 * kShape.n_heads * kShape.head_dim * (kRows * kKeys - kRows * (kRows - 1) / 2));
  EXPECT_EQ(all["upload"].n_calls, 2);
  EXPECT_EQ(all["download"].n_bytes, 4.0 * kRows * kWidth);
}

TEST_F(TimedBackendTest, KeepsKeysInF8WhereTheOtherDoes) {
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  backend->keep_kv_in_f8();
  EXPECT_EQ(make_timed_backend(std::move(backend))->kv_dtype(), Dtype::f8);
}

TEST_F(TimedBackendTest, RoundsRowsWhereTheOtherDoes) {
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  backend->round_rows_to_f8();
  EXPECT_TRUE(make_timed_backend(std::move(backend))->rounds_rows());
}

// A device's clock marks points between operations, which repeated ones have not.
class ClockedBackend : public testing::LateBackend {
 public:
  ClockedBackend() : LateBackend(make_cpu_backend(1)) {}
  std::unique_ptr<trace::DeviceClock> make_clock() override {
    struct Clock : trace::DeviceClock {
      std::uint64_t mark(trace::Lane) override { return 1; }
      std::optional<double> reached(std::uint64_t) override { return 0; }
    };
    return std::make_unique<Clock>();
  }
};

TEST_F(TimedBackendTest, OperationsAreRepeatedTogetherInStepsWhoseTimesNobodyAsksFor) {
  auto made = std::make_unique<ClockedBackend>();
  const ClockedBackend& clocked = *made;
  const std::unique_ptr<Backend> timed = make_timed_backend(std::move(made));
  const std::unique_ptr<Repeated> repeated = timed->make_repeated();
  std::int64_t n_called = 0;
  for (const std::int64_t step : {0, 1, 5, 32, 33}) {
    const trace::Step of(step);
    repeated->run([&] { ++n_called; });
  }
  EXPECT_EQ(n_called, 5);
  EXPECT_EQ(clocked.n_repeated(), 2) << "steps 5 and 33";
}

// An operation that it leaves out would run another body than the backend's own.
TEST_F(TimedBackendTest, HasEveryOperation) {
  const auto names = [](const char* path, const char* pattern) {
    std::ifstream file(std::string(STARATTN_SOURCE_DIR) + path);
    std::stringstream text;
    text << file.rdbuf();
    const std::string all = text.str();
    std::set<std::string> found;
    const std::regex wanted(pattern);
    for (std::sregex_iterator at(all.begin(), all.end(), wanted), end; at != end; ++at)
      found.insert((*at)[1]);
    return found;
  };
  std::set<std::string> theirs =
      names("/src/backend/backend.h", R"(virtual [^;{(]*?\b(\w+)\((?!\) = default))");
  theirs.erase("make_clock");
  theirs.erase("Backend");
  EXPECT_GT(theirs.size(), 50U);
  const std::set<std::string> ours =
      names("/src/backend/timed_backend.cpp", R"((\w+)\([^;{}]*\)\s*(?:const\s+)?override)");
  for (const std::string& name : theirs) EXPECT_TRUE(ours.contains(name)) << name;
}

}  // namespace
}  // namespace starattn
