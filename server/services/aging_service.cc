#include "server/services/aging_service.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/support/status.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/age_sweep.h"
#include "mmu_core/vm/missing_slots.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

constexpr uint64_t kMaxUnits = uint64_t{4} << 20;

struct AgePlan {
  mmu::AgeMode mode = mmu::AgeMode::kTest;
  mmu::Level granularity = mmu::Level::k4K;
  std::vector<mmu::GfnRange> ranges;
  // Of all memslots those that go meanwhile are left out.
  mmu::MissingSlots missing = mmu::MissingSlots::kRefuse;
};

absl::StatusOr<AgePlan> Plan(const v1::AgeRangeRequest& request,
                             const ManagedVm& vm) {
  AgePlan plan;
  switch (request.mode()) {
    case v1::AGING_MODE_TEST:
      break;
    case v1::AGING_MODE_TEST_AND_CLEAR:
      plan.mode = mmu::AgeMode::kTestAndClear;
      break;
    default:
      return WrongValue("INVALID_AGING_MODE", "mode",
                        static_cast<int>(request.mode()),
                        "TEST or TEST_AND_CLEAR");
  }
  if (!v1::AgingLockMode_IsValid(request.lock_mode())) {
    return WrongValue("INVALID_ENUM_VALUE", "lock_mode",
                      static_cast<int>(request.lock_mode()),
                      "LOCKLESS_ONLY or MAY_LOCK");
  }
  absl::StatusOr<mmu::Level> level =
      ToLevel(request.granularity(), mmu::Level::k4K, "granularity");
  if (!level.ok()) return level.status();
  plan.granularity = *level;
  absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      ToRangesOfVm(request.ranges(), vm, "ranges");
  if (!ranges.ok()) return ranges.status();
  plan.ranges = *ranges;
  if (request.ranges().empty()) plan.missing = mmu::MissingSlots::kSkip;
  const uint64_t unit = mmu::PagesPer(plan.granularity);
  uint64_t units = 0;
  for (size_t i = 0; i < plan.ranges.size(); ++i) {
    const mmu::GfnRange& range = plan.ranges[i];
    if (!mmu::IsAligned(range.start, plan.granularity) ||
        range.pages() % unit != 0) {
      return InvalidField("UNALIGNED", absl::StrCat("ranges[", i, "]"),
                          absl::StrCat("ranges[", i,
                                       "] must begin and end on a multiple of "
                                       "granularity, ",
                                       unit << mmu::kPageShift, " bytes"));
    }
    units += range.pages() / unit;
  }
  if (units > kMaxUnits) {
    return InvalidField(
        "TOO_MANY_PAGES", "ranges",
        absl::StrCat("the ranges have ", units, " units; one call may ask for ",
                     kMaxUnits, ": use a larger granularity or more calls"));
  }
  return plan;
}

// Sets the bits of the units of `range` in `bitmap` that have a young page in
// `piece`.
void SetUnits(const mmu::AgeSweep::Piece& piece, mmu::GfnRange range,
              uint64_t unit, std::string* bitmap) {
  const mmu::GfnRange both = piece.pages.Intersect(range);
  if (both.empty()) return;
  const uint64_t first = both.start - piece.pages.start;
  const uint64_t end = both.end - piece.pages.start;
  for (uint64_t word = first / 64; word * 64 < end; ++word) {
    uint64_t bits = piece.result.young[word];
    while (bits != 0) {
      const auto page =
          word * 64 + static_cast<uint64_t>(__builtin_ctzll(bits));
      bits &= bits - 1;
      if (page < first) continue;
      if (page >= end) break;
      const uint64_t index = (piece.pages.start + page - range.start) / unit;
      (*bitmap)[index / 8] =
          static_cast<char>((*bitmap)[index / 8] | (1 << (index % 8)));
    }
  }
}

// Gives what a sweep finds to the ranges that were asked for, which may touch,
// overlap and be in any order.
class Distribution {
 public:
  Distribution(const std::vector<mmu::GfnRange>& ranges, uint64_t unit)
      : ranges_(ranges), unit_(unit), order_(ranges.size()) {
    for (const mmu::GfnRange& range : ranges) {
      bitmaps_.emplace_back((range.pages() / unit + 7) / 8, '\0');
    }
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
      return ranges[a].start < ranges[b].start;
    });
  }

  // Pieces come in ascending order.
  void Add(const mmu::AgeSweep::Piece& piece) {
    while (next_ < order_.size() &&
           ranges_[order_[next_]].start < piece.pages.end) {
      open_.push_back(order_[next_++]);
    }
    for (const size_t i : open_) {
      SetUnits(piece, ranges_[i], unit_, &bitmaps_[i]);
    }
    std::erase_if(open_,
                  [&](size_t i) { return ranges_[i].end <= piece.pages.end; });
  }
  std::string TakeBitmap(size_t range) { return std::move(bitmaps_[range]); }

 private:
  const std::vector<mmu::GfnRange>& ranges_;
  const uint64_t unit_;
  std::vector<std::string> bitmaps_;  // by range
  std::vector<size_t> order_;         // ranges by their start
  size_t next_ = 0;                   // in order_: the first not begun
  std::vector<size_t> open_;          // begun, and not through
};

}  // namespace

AgingServiceImpl::AgingServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.AgingService", state.calls), state_(state) {
  Long("AgeRange", this, &AgingServiceImpl::AgeRange);
  CheckComplete();
}

grpc::Status AgingServiceImpl::AgeRange(CallContext* context,
                                        const v1::AgeRangeRequest* request,
                                        v1::AgeRangeResponse* response) {
  return Mutate(state_, *context, "AgeRange", WhileDraining::kAllow, *request,
                response, [&] { return Age(*context, *request); });
}

absl::StatusOr<v1::AgeRangeResponse> AgingServiceImpl::Age(
    const CallContext& context, const v1::AgeRangeRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<AgePlan> plan = Plan(request, **vm);
  if (!plan.ok()) return plan.status();
  const uint64_t unit = mmu::PagesPer(plan->granularity);
  mmu::MmuCost cost;
  v1::AgeRangeResponse response;
  Distribution young(plan->ranges, unit);
  mmu::AgeSweep sweep((*vm)->vm(), plan->ranges, plan->mode, plan->missing);
  bool was_fast = false;
  uint64_t young_page_count = 0;
  uint64_t old_page_count = 0;
  while (!sweep.done()) {
    if (absl::Status status = CheckVmCall(context, **vm); !status.ok()) {
      return status;
    }
    const absl::StatusOr<mmu::AgeSweep::Piece> piece = sweep.Next(&cost);
    if (!piece.ok()) return piece.status();
    if (request.mode() == v1::AGING_MODE_TEST_AND_CLEAR) {
      state_.call_log.NotePartDone(context.id());
    }
    young.Add(*piece);
    was_fast |= piece->result.was_fast;
    young_page_count += piece->result.young_page_count;
    old_page_count += piece->result.old_page_count;
  }
  for (size_t i = 0; i < plan->ranges.size(); ++i) {
    v1::YoungBitmap* bitmap = response.add_young();
    *bitmap->mutable_range() = ToExtent(plan->ranges[i]);
    bitmap->set_bitmap(young.TakeBitmap(i));
  }
  response.set_young_page_count(static_cast<int64_t>(young_page_count));
  response.set_old_page_count(static_cast<int64_t>(old_page_count));
  response.set_granularity(ToPageSize(plan->granularity));
  const mmu::MmuMode mmu = (*vm)->vm().config().mmu;
  if (mmu == mmu::MmuMode::kTdp || mmu == mmu::MmuMode::kNested) {
    response.set_tdp_coverage(v1::AGING_COVERAGE_COVERED);
  }
  if (mmu != mmu::MmuMode::kTdp) {
    response.set_shadow_coverage(v1::AGING_COVERAGE_COVERED);
  }
  response.set_was_fast(was_fast);
  *response.mutable_cost() = ToProto(cost);
  return response;
}

}  // namespace mmud
