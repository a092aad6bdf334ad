#include "mmu_core/guest/trace_replay.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/guest/vector_trace_stream.h"

namespace mmu {
namespace {

using Accesses = std::vector<GuestAccess>;
using ::testing::HasSubstr;

constexpr uint64_t kShareStart = 1000 * kPageSize;

GpaSpace Share(uint64_t pages) {
  return GpaSpace::Create({GfnRange::Of(Gfn(1000), pages)}).value();
}

std::unique_ptr<TraceStream> StreamOf(Accesses accesses) {
  return std::make_unique<VectorTraceStream>(
      std::make_shared<const Accesses>(std::move(accesses)));
}

Accesses TakeAll(AccessSource& source) {
  Accesses taken;
  GuestAccess access;
  while (source.Next(&access)) taken.push_back(access);
  return taken;
}

GuestAccess Read(uint64_t address, uint32_t size) {
  return {address, size, AccessKind::kRead};
}
GuestAccess Write(uint64_t address, uint32_t size) {
  return {address, size, AccessKind::kWrite};
}

// Ends with an error after the given accesses.
class BreakingStream final : public TraceStream {
 public:
  explicit BreakingStream(int good) : good_(good) {}
  absl::StatusOr<bool> Next(GuestAccess* access) override {
    if (good_-- <= 0) return absl::DataLossError("block 3 is torn");
    *access = Read(0x1000, 4);
    return true;
  }
  absl::Status Rewind() override { return absl::OkStatus(); }

 private:
  int good_;
};

TEST(TraceReplayTest, PutsProgramPagesIntoTheShareByFirstTouch) {
  TraceReplaySource source(StreamOf({Write(0x7ffe10, 8),
                                     Read(0x401020, 4),
                                     Read(0x7ffe18, 8),
                                     {0x401000, 3, AccessKind::kExec}}),
                           Share(8), {});
  EXPECT_EQ(TakeAll(source),
            (Accesses{Write(kShareStart + 0xe10, 8),
                      Read(kShareStart + 0x1020, 4),
                      Read(kShareStart + 0xe18, 8),
                      {kShareStart + 0x1000, 3, AccessKind::kExec}}));
  EXPECT_EQ(source.status(), absl::OkStatus());
  EXPECT_EQ(source.completed_runs(), 1u);
  EXPECT_EQ(source.first_touches(), 2u);
}

TEST(TraceReplayTest, AccessAcrossAPageBecomesTwo) {
  // Page 6 is touched first, so the pages 5 and 6 are not adjacent in the
  // share.
  TraceReplaySource source(StreamOf({Read(0x6000, 1), Write(0x5ffe, 8)}),
                           Share(8), {});
  EXPECT_EQ(TakeAll(source),
            (Accesses{Read(kShareStart, 1), Write(kShareStart + 0x1ffe, 2),
                      Write(kShareStart, 6)}));
}

TEST(TraceReplayTest, AccessEndingAtThePageEndStaysWhole) {
  TraceReplaySource source(StreamOf({Read(0x5ff8, 8), Read(0x6000, 4096)}),
                           Share(8), {});
  EXPECT_EQ(TakeAll(source), (Accesses{Read(kShareStart + 0xff8, 8),
                                       Read(kShareStart + 0x1000, 4096)}));
}

TEST(TraceReplayTest, RepeatedProgramMovesThroughTheMemory) {
  TraceReplayOptions options;
  options.repeat_count = 4;
  TraceReplaySource source(StreamOf({Write(0x1000, 8), Write(0x2000, 8)}),
                           Share(6), options);
  std::vector<uint64_t> pages;
  for (const GuestAccess& access : TakeAll(source)) {
    pages.push_back((access.address_bytes - kShareStart) / kPageSize);
  }
  EXPECT_EQ(pages, (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 0, 1}));
  EXPECT_EQ(source.completed_runs(), 4u);
}

TEST(TraceReplayTest, UnboundedRepeatEndsOnlyAtTheAccessCount) {
  TraceReplayOptions options;
  options.repeat_count = 0;
  options.access_count = 1001;
  TraceReplaySource source(StreamOf({Write(0x1000, 8), Read(0x2ffc, 8)}),
                           Share(6), options);
  EXPECT_EQ(TakeAll(source).size(), 1001u);
  EXPECT_EQ(source.status(), absl::OkStatus());
}

TEST(TraceReplayTest, ShareTooSmallForOneRunEndsAsResourceExhausted) {
  TraceReplaySource source(
      StreamOf({Read(0x1000, 8), Read(0x2000, 8), Read(0x3000, 8)}), Share(2),
      {});
  EXPECT_EQ(TakeAll(source).size(), 2u);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(source.status().message()),
              HasSubstr("more than the 2 guest pages"));
  GuestAccess access;
  EXPECT_FALSE(source.Next(&access));
}

TEST(TraceReplayTest, RunsThatFitOneByOneAreNeverExhausted) {
  TraceReplayOptions options;
  options.repeat_count = 100;
  TraceReplaySource source(
      StreamOf({Read(0x1000, 8), Read(0x2000, 8), Read(0x3000, 8)}), Share(3),
      options);
  EXPECT_EQ(TakeAll(source).size(), 300u);
  EXPECT_EQ(source.status(), absl::OkStatus());
}

TEST(TraceReplayTest, EmptyTraceEndsInsteadOfSpinning) {
  TraceReplayOptions options;
  options.repeat_count = 0;
  TraceReplaySource source(StreamOf({}), Share(3), options);
  EXPECT_TRUE(TakeAll(source).empty());
  EXPECT_EQ(source.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TraceReplayTest, EmptyShareEndsAtOnce) {
  TraceReplaySource source(StreamOf({Read(0x1000, 8)}), GpaSpace(), {});
  EXPECT_TRUE(TakeAll(source).empty());
  EXPECT_EQ(source.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TraceReplayTest, ErrorOfTheStreamIsKept) {
  TraceReplaySource source(std::make_unique<BreakingStream>(3), Share(3), {});
  EXPECT_EQ(TakeAll(source).size(), 3u);
  EXPECT_EQ(source.status(), absl::DataLossError("block 3 is torn"));
}

TEST(TraceReplayTest, ImpossibleSizesAreDataLoss) {
  for (const uint32_t size : {0u, 4097u, ~0u}) {
    TraceReplaySource source(StreamOf({Read(0x1000, size)}), Share(3), {});
    EXPECT_TRUE(TakeAll(source).empty());
    EXPECT_EQ(source.status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(TraceReplayTest, SameTraceAndShareGiveTheSameAccesses) {
  for (const PagePlacement placement :
       {PagePlacement::kContiguous, PagePlacement::kScattered}) {
    TraceReplayOptions options;
    options.repeat_count = 3;
    options.placement = placement;
    Accesses trace;
    for (uint64_t i = 0; i < 500; ++i) {
      trace.push_back(Write(i * 7919 % 50 * kPageSize + i * 8, 8));
    }
    TraceReplaySource a(StreamOf(trace), Share(64), options);
    TraceReplaySource b(StreamOf(trace), Share(64), options);
    EXPECT_EQ(TakeAll(a), TakeAll(b));
  }
}

}  // namespace
}  // namespace mmu
