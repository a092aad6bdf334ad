#include "server/services/aging_service.h"

#include <algorithm>
#include <cstdint>
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
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"
#include "server/services/convert.h"

namespace mmud {
namespace {

constexpr uint64_t kMaxUnits = uint64_t{4} << 20;
// Pages of one step: a gigabyte, so that no unit is cut.
constexpr uint64_t kStepPages = mmu::PagesPer(mmu::Level::k1G);

struct AgePlan {
  mmu::AgeMode mode = mmu::AgeMode::kTest;
  mmu::Level granularity = mmu::Level::k4K;
  std::vector<mmu::GfnRange> ranges;
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

// Sets the bits of the units in `bitmap`, from unit `first_unit` on, that have
// a young page.
void SetUnits(const mmu::AgeResult& result, uint64_t pages, uint64_t unit,
              uint64_t first_unit, std::string* bitmap) {
  for (uint64_t word = 0; word < result.young.size(); ++word) {
    uint64_t bits = result.young[word];
    while (bits != 0) {
      const auto page =
          word * 64 + static_cast<uint64_t>(__builtin_ctzll(bits));
      bits &= bits - 1;
      if (page >= pages) break;
      const uint64_t index = first_unit + page / unit;
      (*bitmap)[index / 8] =
          static_cast<char>((*bitmap)[index / 8] | (1 << (index % 8)));
    }
  }
}

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
  for (const mmu::GfnRange& range : plan->ranges) {
    v1::YoungBitmap* young = response.add_young();
    *young->mutable_range() = ToExtent(range);
    std::string bitmap((range.pages() / unit + 7) / 8, '\0');
    for (mmu::Gfn at = range.start; at < range.end;) {
      if (absl::Status status = CheckCaller(context); !status.ok()) {
        return status;
      }
      const uint64_t pages = std::min(kStepPages, range.end - at);
      absl::StatusOr<mmu::AgeResult> result =
          (*vm)->vm().Age(mmu::GfnRange::Of(at, pages), plan->mode, &cost);
      if (!result.ok()) return result.status();
      SetUnits(*result, pages, unit, (at - range.start) / unit, &bitmap);
      response.set_young_page_count(
          response.young_page_count() +
          static_cast<int64_t>(result->young_page_count));
      response.set_old_page_count(response.old_page_count() +
                                  static_cast<int64_t>(result->old_page_count));
      at += pages;
    }
    young->set_bitmap(std::move(bitmap));
  }
  response.set_granularity(ToPageSize(plan->granularity));
  const mmu::MmuMode mmu = (*vm)->vm().config().mmu;
  if (mmu == mmu::MmuMode::kTdp || mmu == mmu::MmuMode::kNested) {
    response.set_tdp_coverage(v1::AGING_COVERAGE_COVERED);
  }
  if (mmu != mmu::MmuMode::kTdp) {
    response.set_shadow_coverage(v1::AGING_COVERAGE_COVERED);
  }
  response.set_was_fast(response.young_page_count() > 0);
  *response.mutable_cost() = ToProto(cost);
  return response;
}

}  // namespace mmud
