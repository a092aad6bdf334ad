#include "server/control/dirty_log_calls.h"

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_codec.h"

namespace mmud {
namespace {

// Pages that one step of a clear covers: 256 MiB of guest memory.
constexpr uint64_t kClearStepPages = 1 << 16;

// The same call at the time that it is now.
mmu::LogCall Now(mmu::LogCall call) {
  call.now = mmu::MonotonicTime::Now();
  return call;
}

int64_t Signed(uint64_t count) { return static_cast<int64_t>(count); }

}  // namespace

absl::StatusOr<uint64_t> ToEpoch(int64_t epoch, const char* field) {
  if (epoch >= 0) return static_cast<uint64_t>(epoch);
  // As mmu_core says it of any other number that is none of an epoch.
  return mmu::MakeError(
      absl::StatusCode::kNotFound, {"EPOCH_UNKNOWN", field},
      absl::StrCat(field, " is ", epoch,
                   "; it must be the number of an epoch, which is not "
                   "negative; GetDirtyLog shows those of the log"));
}

absl::StatusOr<v1::SealDirtyLogResponse> Seal(ManagedVm& vm,
                                              const mmu::LogCall& call,
                                              int64_t acknowledged_epoch) {
  const absl::StatusOr<uint64_t> acknowledged =
      ToEpoch(acknowledged_epoch, "acknowledged_epoch");
  if (!acknowledged.ok()) return AboutVm(acknowledged.status(), vm.name());
  mmu::MmuCost cost;
  const absl::StatusOr<mmu::SealOutcome> sealed =
      vm.vm().SealDirtyLog(call, *acknowledged, &cost);
  if (!sealed.ok()) return AboutVm(sealed.status(), vm.name());
  v1::SealDirtyLogResponse response;
  response.set_log_id(sealed->log_id.ToString());
  response.set_epoch(Signed(sealed->epoch));
  for (const mmu::SlotSeal& slot : sealed->slots) {
    v1::SealedSlot* proto = response.add_slots();
    proto->set_slot(static_cast<int32_t>(slot.slot));
    proto->set_fresh_page_count(Signed(slot.fresh_page_count));
    proto->set_merged_page_count(Signed(slot.merged_page_count));
  }
  response.set_acknowledged_page_count(Signed(sealed->acknowledged_page_count));
  *response.mutable_cost() = ToProto(cost);
  return response;
}

absl::StatusOr<v1::ClearDirtyLogResponse> Clear(ManagedVm& vm,
                                                const mmu::LogCall& call,
                                                int64_t epoch,
                                                const NamedPages& pages,
                                                const ClearCalls& calls) {
  if (epoch < 0) {
    return AboutVm(
        mmu::MakeError(absl::StatusCode::kAborted, {"EPOCH_MISMATCH", "epoch"},
                       absl::StrCat("epoch ", epoch,
                                    " cannot be cleared: it must be the last "
                                    "sealed one; GetDirtyLog shows it")),
        vm.name());
  }
  const uint64_t number = static_cast<uint64_t>(epoch);
  mmu::ClearResult sum;
  mmu::MmuCost cost;
  uint64_t done = 0;
  // Once also for a range without pages, so that it is refused where it would
  // be with some.
  do {
    if (absl::Status status = calls.keep_going(); !status.ok()) return status;
    const uint64_t count = std::min(kClearStepPages, pages.page_count - done);
    const auto words =
        absl::MakeConstSpan(pages.mask).subspan(done / 64, (count + 63) / 64);
    const absl::StatusOr<mmu::ClearResult> step =
        vm.vm().ClearDirtyLog(Now(call), pages.slot, number,
                              pages.first_page + done, count, words, &cost);
    if (!step.ok()) return AboutVm(step.status(), vm.name());
    calls.part_done();
    sum.cleared_page_count += step->cleared_page_count;
    sum.already_in_flight_page_count += step->already_in_flight_page_count;
    sum.already_clean_page_count += step->already_clean_page_count;
    sum.still_sealed_page_count = step->still_sealed_page_count;
    sum.split_2m_count += step->split_2m_count;
    sum.split_1g_count += step->split_1g_count;
    done += count;
  } while (done < pages.page_count);
  v1::ClearDirtyLogResponse response;
  response.set_cleared_page_count(Signed(sum.cleared_page_count));
  response.set_already_in_flight_page_count(
      Signed(sum.already_in_flight_page_count));
  response.set_already_clean_page_count(Signed(sum.already_clean_page_count));
  response.set_still_sealed_page_count(Signed(sum.still_sealed_page_count));
  response.mutable_splits()->set_split_2m_count(Signed(sum.split_2m_count));
  response.mutable_splits()->set_split_1g_count(Signed(sum.split_1g_count));
  *response.mutable_cost() = ToProto(cost);
  return response;
}

absl::StatusOr<v1::AcknowledgePagesResponse> Acknowledge(
    ManagedVm& vm, const mmu::LogCall& call, int64_t epoch,
    const NamedPages* pages) {
  const absl::StatusOr<uint64_t> number = ToEpoch(epoch, "epoch");
  if (!number.ok()) return AboutVm(number.status(), vm.name());
  const absl::StatusOr<mmu::AcknowledgeResult> result =
      pages == nullptr ? vm.vm().AcknowledgePages(call, *number)
                       : vm.vm().AcknowledgePages(
                             call, *number, pages->slot, pages->first_page,
                             pages->page_count, pages->mask);
  if (!result.ok()) return AboutVm(result.status(), vm.name());
  v1::AcknowledgePagesResponse response;
  response.set_acknowledged_page_count(Signed(result->acknowledged_page_count));
  response.set_later_page_count(Signed(result->later_page_count));
  response.set_not_in_flight_page_count(
      Signed(result->not_in_flight_page_count));
  response.set_still_in_flight_page_count(
      Signed(result->still_in_flight_page_count));
  return response;
}

absl::StatusOr<NamedPages> FindPages(const v1::SlotPages& pages,
                                     const ManagedVm& vm) {
  const absl::StatusOr<uint32_t> slot = ToSlot(pages.slot(), "pages.slot");
  if (!slot.ok()) return slot.status();
  const absl::optional<mmu::MemslotInfo> info = vm.FindSlot(*slot);
  if (!info.has_value()) {
    return MemslotNotFound(MakeMemslotName(vm.name(), *slot));
  }
  return DecodeSlotPages(pages, info->config);
}

}  // namespace mmud
