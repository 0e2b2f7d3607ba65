// SPDX-License-Identifier: Apache-2.0
// What is recorded, and what a profile and a trace make of it.
#include "trace/recorder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "trace/range.h"

namespace starattn::trace {
namespace {

class RecorderTest : public ::testing::Test {
 protected:
  ~RecorderTest() override {
    recorder().stop();
    reset();
  }
  static Operation only() {
    const std::vector<Operation> all = recorder().operations();
    EXPECT_EQ(all.size(), 1U);
    return all.empty() ? Operation{} : all.front();
  }
  static Json trace_of_rank(int rank) {
    std::string text =
        "[" + recorder().trace_events(rank, [](double time) { return time - 1; }) + "]";
    text.erase(text.rfind(','), 1);
    return parse_json(text, "trace");
  }
};

TEST_F(RecorderTest, NothingIsRecordedUnlessSomebodyAsks) {
  EXPECT_FALSE(is_recording());
  { const Span span("work", Lane::compute, {.flop = 1}); }
  message("word", 3);
  EXPECT_TRUE(recorder().operations().empty());
  EXPECT_TRUE(recorder().messages().empty());
  EXPECT_EQ(document("a"), -1);
}

TEST_F(RecorderTest, SpansOfOneNameAndShapeAreOneOperation) {
  recorder().start(/*for_profile=*/true, /*for_trace=*/false);
  {
    const Range phase("phase 1");
    for (const std::int64_t rows : {4, 512})
      const Span span("project", Lane::compute,
                      {.n_rows = rows, .n_in = 8, .n_out = 16, .flop = 10, .n_bytes = 2});
    const Span other("project", Lane::compute, {.n_rows = 4, .n_in = 8, .n_out = 32});
  }
  const std::vector<Operation> all = recorder().operations();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].phase, "phase 1");
  EXPECT_EQ(all[0].n_out, 16);
  EXPECT_EQ(all[0].n_calls, 2);
  EXPECT_EQ(all[0].n_timed, 2);
  EXPECT_EQ(all[0].flop, 20);
  EXPECT_EQ(all[0].n_bytes, 4);
  EXPECT_EQ(all[1].n_calls, 1);
  recorder().forget_counts();
  EXPECT_TRUE(recorder().operations().empty());
}

// A device that comes to a mark when it is told to.
class LateClock : public DeviceClock {
 public:
  std::uint64_t mark(Lane lane) override {
    times_.push_back(next_ += lane == Lane::compute ? 1 : 0.25);
    return times_.size();
  }
  std::optional<double> reached(std::uint64_t mark) override {
    ++n_asked_;
    if (mark > reached_) return std::nullopt;
    return times_[mark - 1];
  }
  std::uint64_t reached_ = 0;
  int n_asked_ = 0;

 private:
  std::vector<double> times_;
  double next_ = 0;
};

// The first two steps and every 32nd are timed; all count, and the time is scaled up.
TEST_F(RecorderTest, StepsThatADeviceDoesNotTimeCount) {
  recorder().start(true, false);
  LateClock clock;
  clock.reached_ = 100;
  for (std::int64_t step = 0; step < 50; ++step) {
    const Step timed(step);
    const Span span("project", Lane::compute, {.n_rows = 1, .flop = 5}, &clock);
    const Span wait("wait for queries", Lane::messages);
  }
  const std::vector<Operation> all = recorder().operations();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].n_calls, 50);
  EXPECT_EQ(all[0].n_timed, 3);  // 0, 1, 32
  EXPECT_EQ(all[0].flop, 250);
  EXPECT_DOUBLE_EQ(all[0].seconds, 50);
  EXPECT_EQ(all[1].n_timed, 50);
  EXPECT_TRUE(recorder().times_devices());
}

TEST_F(RecorderTest, ADeviceSaysLaterHowLongItTook) {
  recorder().start(true, true);
  LateClock clock;
  { const Span span("attention", Lane::compute, {.n_rows = 1}, &clock); }  // 1 to 2
  {
    const Span span("copy", Lane::to_host, {.n_bytes = 8}, &clock, Span::Starts::behind_operations);
  }                              // behind 3.25, to 3.5
  EXPECT_EQ(clock.n_asked_, 0);  // nobody waits
  clock.reached_ = 5;
  const std::vector<Operation> all = recorder().operations();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].name, "attention");
  EXPECT_DOUBLE_EQ(all[0].seconds, 1);
  EXPECT_DOUBLE_EQ(all[1].seconds, 0.25);
  const Json trace = trace_of_rank(3);
  const auto copy =
      std::ranges::find_if(trace, [](const Json& event) { return event["name"] == "copy"; });
  ASSERT_NE(copy, trace.end());
  EXPECT_EQ((*copy)["ts"], 2.25e6);
  EXPECT_EQ((*copy)["dur"], 0.25e6);
}

TEST_F(RecorderTest, ManyLateSpansAreAskedForMeanwhile) {
  recorder().start(true, false);
  LateClock clock;
  clock.reached_ = 100;
  for (int i = 0; i < 200; ++i) const Span span("attention", Lane::compute, {}, &clock);
  EXPECT_GT(clock.n_asked_, 50);
  clock.reached_ = 400;
  EXPECT_EQ(only().n_timed, 200);
}

TEST_F(RecorderTest, ATraceSaysWhatAndWhere) {
  recorder().start(false, true);
  {
    const At at({.document = document("a \"quoted\" id\x01")});
    const Range range("layer", Lane::host, {.block = 2, .layer = 5});
    message("anchor broadcast", 64);
    const Span span("project", Lane::compute,
                    {.n_rows = 7, .n_in = 8, .n_out = 16, .flop = 1e15, .n_bytes = 3});
  }
  { const Range range("phase 2"); }
  const Json trace = trace_of_rank(1);
  std::map<std::string, Json> events;
  for (const Json& event : trace)
    if (event["ph"] != "M") events[event["name"].get<std::string>()] = event;
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events["project"]["args"],
            parse_json(R"({"rank":1,"document":"a \"quoted\" id\u0001","block":2,"layer":5,"rows":7,
                           "in":8,"out":16,"flop":1000000000000000,"bytes":3})",
                       "expected"));
  EXPECT_EQ(events["anchor broadcast"]["ph"], "i");
  EXPECT_EQ(events["anchor broadcast"]["args"]["bytes"], 64);
  EXPECT_EQ(events["layer"]["tid"], 11);
  EXPECT_EQ(events["phase 2"]["args"], parse_json(R"({"rank":1})", "expected"));
  EXPECT_NE(events["project"]["tid"], events["anchor broadcast"]["tid"]);
}

TEST_F(RecorderTest, MessagesAreCountedByKind) {
  recorder().start(true, false);
  count_bytes("recall", 5);
  count_bytes("recall", 7);
  count_bytes("save blocks", 100, Lane::files);
  const std::vector<MessageCount> all = recorder().messages();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].n_calls, 2);
  EXPECT_EQ(all[0].n_bytes, 12U);
}

TEST_F(RecorderTest, AMarkerHearsRangesAndSpansInOrder) {
  static std::string heard;
  heard.clear();
  const Range before("open model");
  set_marker({[](const char* name) { heard += std::string("<") + name; }, [] { heard += ">"; }});
  {
    const Range range("phase 1");
    const Span span("project", Lane::compute);
  }
  set_marker({});
  EXPECT_EQ(heard, "<phase 1<project>>");
  EXPECT_FALSE(is_recording());
}

}  // namespace
}  // namespace starattn::trace
