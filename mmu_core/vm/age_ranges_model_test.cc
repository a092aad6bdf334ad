// Ageing of the ranges that callers really send: unaligned ones, parts of huge
// pages, ranges that overlap, touch and repeat, over memslots that come and go.
// Each answer has to be that of a flat array with the state of each page
// (testing/age_model.h).
//
// MODEL_TEST_SECONDS: how long each test goes on with further seeds.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/age_model.h"
#include "mmu_core/testing/aged_guest.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/age_sweep.h"

namespace mmu::testing {
namespace {

using Af = Stage2Config::AccessFlag;
using Ad = VmConfig::AdBits;

struct Mmu {
  const char* name;
  MmuMode mode;
  EntryFormat format = EntryFormat::kEpt;
  Ad ad_bits = Ad::kOn;
  uint32_t granule_bytes = 4096;
  Af access_flag = Af::kByFault;
};

VmConfig ConfigOf(const Mmu& mmu) {
  VmConfig config;
  config.mmu = mmu.mode;
  config.format = mmu.format;
  config.ad_bits = mmu.ad_bits;
  config.stage2.granule_bytes = mmu.granule_bytes;
  config.stage2.access_flag = mmu.access_flag;
  config.memslots = AgedMemory();
  return config;
}

// What a sweep is asked for.
struct Request {
  std::vector<GfnRange> ranges;
  AgeMode mode = AgeMode::kTest;
  MissingSlots missing = MissingSlots::kRefuse;
  AgeOptions options;
};

std::ostream& operator<<(std::ostream& os, const Request& request) {
  os << (request.mode == AgeMode::kTest ? "test" : "test and clear")
     << (request.missing == MissingSlots::kSkip ? ", skip" : "")
     << (request.options.fast_only == FastOnly::kYes ? ", fast only" : "")
     << (request.options.slow == SlowMmus::kRefuse ? ", no slow MMUs" : "");
  for (const GfnRange range : request.ranges) os << " " << range;
  return os;
}

// A guest, and what happens to it by chance.
class RandomGuest {
 public:
  RandomGuest(const Mmu& mmu, uint64_t seed)
      : random_(seed), guest_(RandomConfig(mmu)) {}

  AgedGuest& guest() { return guest_; }

  bool OneIn(uint64_t n) { return random_() % n == 0; }

  // A change of the guest's memory or of how it is mapped.
  void ChangeSomething() {
    switch (random_() % 8) {
      case 0:
        return guest_.Split(SomeRange(SomeSlotThere()));
      case 1:
        return guest_.Recover(SomeRange(SomeSlotThere()));
      default:
        ChangeMeanwhile();
    }
  }

  // The same, in the middle of a sweep.
  void ChangeMeanwhile() {
    switch (random_() % 8) {
      case 0:
      case 1:
        return DeleteOrCreateSlot();
      case 2: {
        const size_t slot = SomeSlotThere();
        return guest_.HostUnmaps(slot, SomeRange(slot));
      }
      default:
        for (uint64_t n = random_() % 20 + 1; n > 0; --n) UsePage();
    }
  }

  Request SomeRequest() {
    Request request;
    if (OneIn(2)) request.mode = AgeMode::kTestAndClear;
    if (OneIn(2)) request.missing = MissingSlots::kSkip;
    if (OneIn(4)) request.options.fast_only = FastOnly::kYes;
    if (OneIn(4)) request.options.slow = SlowMmus::kRefuse;
    for (uint64_t n = random_() % 12 + 1; n > 0; --n) {
      request.ranges.push_back(SomeRange(request));
    }
    return request;
  }

 private:
  VmConfig RandomConfig(const Mmu& mmu) {
    VmConfig config = ConfigOf(mmu);
    if (mmu.mode != MmuMode::kStage2 && OneIn(2)) {
      config.slot_zap = VmConfig::SlotZap::kSlot;
    }
    if (mmu.mode != MmuMode::kNested) config.vcpu_count = 2;
    return config;
  }

  size_t SomeSlot() { return random_() % guest_.slots().size(); }
  size_t SomeSlotThere() {
    for (;;) {
      const size_t slot = SomeSlot();
      if (guest_.IsThere(slot)) return slot;
    }
  }
  Gfn SomeGfn(GfnRange in) { return in.start + random_() % in.pages(); }

  // A part of the slot, often within one huge page or at the ends of some.
  GfnRange SomeRange(size_t slot) {
    const GfnRange all = AgedGuest::RangeOf(guest_.slots()[slot]);
    const Gfn start = SomeGfn(all);
    switch (random_() % 5) {
      case 0:
        return GfnRange::Of(start, 1);
      case 1:
        return GfnRange::Of(start, random_() % 600 + 1).Intersect(all);
      case 2:
        return {RoundDown(start, Level::k2M), RoundUp(start + 1, Level::k2M)};
      case 3:
        return all;
      default: {
        const Gfn other = SomeGfn(all);
        return {std::min(start, other), std::max(start, other) + 1};
      }
    }
  }

  // Also one that an earlier range of the request leads to.
  GfnRange SomeRange(const Request& request) {
    if (!request.ranges.empty() && OneIn(3)) {
      const GfnRange other = request.ranges[random_() % request.ranges.size()];
      switch (random_() % 3) {
        case 0:
          return other;
        case 1:
          return GfnRange::Of(other.end, random_() % 9 + 1)
              .Intersect({Gfn(0), guest_.end()});
        default:
          return other.empty() ? other : GfnRange{SomeGfn(other), other.end};
      }
    }
    if (request.missing == MissingSlots::kSkip && OneIn(8)) {
      return GfnRange::Of(SomeGfn({Gfn(0), guest_.end()}), random_() % 4096)
          .Intersect({Gfn(0), guest_.end()});
    }
    return SomeRange(OneIn(8) ? SomeSlot() : SomeSlotThere());
  }

  // L1 only reads where its tables are.
  void UsePage() {
    if (guest_.l2_pages() != 0 && OneIn(2)) {
      return guest_.UseInL2(random_() % guest_.l2_pages(), SomeKind());
    }
    const size_t slot = SomeSlotThere();
    guest_.Use(SomeGfn(AgedGuest::RangeOf(guest_.slots()[slot])),
               guest_.MayGo(slot) ? SomeKind() : AccessKind::kRead);
  }
  AccessKind SomeKind() {
    return OneIn(2) ? AccessKind::kRead : AccessKind::kWrite;
  }

  // One slot is always there.
  void DeleteOrCreateSlot() {
    const size_t slot = SomeSlot();
    if (!guest_.IsThere(slot)) return guest_.CreateSlot(slot);
    if (guest_.MayGo(slot) && slot != 0) guest_.DeleteSlot(slot);
  }

  std::mt19937_64 random_;
  AgedGuest guest_;
};

// Why the next piece is refused, if it is. It may be, or not, if the use of an
// MMU is not known.
struct Refusal {
  std::optional<Reason> reason;
  bool is_certain = true;
};
Refusal RefusalOf(AgedGuest& guest, const Request& request, GfnRange piece) {
  if (request.missing == MissingSlots::kRefuse && !guest.Covers(piece)) {
    return {Reason::kGpaOutOfRange};
  }
  if (request.options.slow == SlowMmus::kSkip ||
      request.options.fast_only == FastOnly::kNo) {
    return {};
  }
  Refusal refusal;
  for (const MmuKind kind : guest.vm().MmuKinds()) {
    if (guest.AgesFast(kind)) continue;
    refusal = {Reason::kFastAgingUnavailable, guest.IsInUse(kind).has_value()};
  }
  return refusal;
}

class AgeRangesTest : public ::testing::TestWithParam<Mmu> {
 protected:
  static void Sweep(RandomGuest& random, const Request& request,
                    bool changes_meanwhile) {
    AgedGuest& guest = random.guest();
    AgeModel& model = guest.model();
    ASSERT_EQ(guest.WhyNotInStep(), "");
    AgeSweep sweep = guest.vm().MakeAgeSweep(request.ranges, request.mode,
                                             request.missing, request.options);
    model.BeginSweep();
    for (const GfnRange pages : AgeModel::PiecesOf(request.ranges)) {
      SCOPED_TRACE(::testing::Message() << "piece " << pages);
      ASSERT_FALSE(sweep.done());
      const Refusal refusal = RefusalOf(guest, request, pages);
      const absl::StatusOr<AgeSweep::Piece> piece = sweep.Next(nullptr);
      if (refusal.reason.has_value() && (refusal.is_certain || !piece.ok())) {
        ASSERT_EQ(DetailOf(piece.status()).reason, *refusal.reason);
        ASSERT_FALSE(sweep.Next(nullptr).ok()) << "it stays at the piece";
        return;
      }
      ASSERT_TRUE(piece.ok()) << piece.status();
      ASSERT_EQ(piece->pages, pages);
      const AgeModel::Answer answer = {piece->result.young,
                                       piece->result.young_page_count,
                                       piece->result.old_page_count};
      ASSERT_EQ(answer, model.Age(pages, request.mode,
                                  guest.Asked(request.options.fast_only)));
      if (changes_meanwhile && random.OneIn(3)) random.ChangeMeanwhile();
    }
    ASSERT_TRUE(sweep.done()) << "no page comes twice";
  }

  static void RunSeed(uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    RandomGuest random(GetParam(), seed);
    // At first the guest has used nothing.
    for (int round = 0; round < 30; ++round) {
      SCOPED_TRACE(::testing::Message() << "round " << round);
      Request request = random.SomeRequest();
      SCOPED_TRACE(::testing::Message() << "request: " << request);
      ASSERT_NO_FATAL_FAILURE(
          Sweep(random, request, /*changes_meanwhile=*/random.OneIn(3)));
      for (int change = 0; change < 3; ++change) random.ChangeSomething();
    }
    EXPECT_EQ(AuditFindings(random.guest().vm()), "");
  }
};

// Covers: AGE-11, AGE-13, AGE-14, AGE-17, AGE-30
TEST_P(AgeRangesTest, EachAnswerIsThatOfAFlatArrayOfPages) {
  const char* seconds = std::getenv("MODEL_TEST_SECONDS");
  const MonotonicTime end =
      MonotonicTime::Now() +
      absl::Seconds(seconds == nullptr ? 0 : std::atoi(seconds));
  uint64_t seed = 0;
  do {
    ++seed;
    RunSeed(seed);
  } while (!HasFailure() && (seed < 2 || MonotonicTime::Now() < end));
}

INSTANTIATE_TEST_SUITE_P(
    Mmus, AgeRangesTest,
    ::testing::Values(
        Mmu{"Tdp", MmuMode::kTdp},
        Mmu{"TdpWithoutAd", MmuMode::kTdp, EntryFormat::kEpt, Ad::kOff},
        Mmu{"Npt", MmuMode::kTdp, EntryFormat::kNpt},
        Mmu{"TdpShadow", MmuMode::kTdpShadow},
        Mmu{"TdpShadowWithoutAd", MmuMode::kTdpShadow, EntryFormat::kEpt,
            Ad::kOff},
        Mmu{"Nested", MmuMode::kNested},
        Mmu{"NestedWithoutAd", MmuMode::kNested, EntryFormat::kEpt, Ad::kOff},
        Mmu{"Stage2", MmuMode::kStage2},
        Mmu{"Stage2By16K", MmuMode::kStage2, EntryFormat::kEpt, Ad::kOn, 16384},
        Mmu{"Stage2By64K", MmuMode::kStage2, EntryFormat::kEpt, Ad::kOn, 65536},
        Mmu{"Stage2WithAf", MmuMode::kStage2, EntryFormat::kEpt, Ad::kOn, 4096,
            Af::kByHardware},
        Mmu{"Stage2WithAfBy16K", MmuMode::kStage2, EntryFormat::kEpt, Ad::kOn,
            16384, Af::kByHardware},
        Mmu{"Stage2WithAfBy64K", MmuMode::kStage2, EntryFormat::kEpt, Ad::kOn,
            65536, Af::kByHardware}),
    [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace mmu::testing
