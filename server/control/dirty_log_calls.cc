#include "server/control/dirty_log_calls.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

// Pages that one step of a clear covers: 256 MiB of guest memory.
constexpr uint64_t kClearStepPages = 1 << 16;

// The same call with the current time.
mmu::LogCall Now(mmu::LogCall call) {
  call.now = mmu::MonotonicTime::Now();
  return call;
}

void Add(const mmu::ClearResult& step, mmu::ClearResult* sum) {
  sum->cleared_page_count += step.cleared_page_count;
  sum->already_in_flight_page_count += step.already_in_flight_page_count;
  sum->already_clean_page_count += step.already_clean_page_count;
  sum->still_sealed_page_count = step.still_sealed_page_count;
  sum->also_protected_page_count += step.also_protected_page_count;
  sum->split_2m_count += step.split_2m_count;
  sum->split_1g_count += step.split_1g_count;
}

}  // namespace

absl::Status AboutLog(absl::Status status, absl::string_view vm) {
  return AboutVm(
      InFields(std::move(status), {{"key", "owner_token"},
                                   {"undelivered", "discard_undelivered"}}),
      vm);
}

absl::StatusOr<mmu::DirtyLogView> GetLog(const ManagedVm& vm) {
  absl::StatusOr<mmu::DirtyLogView> log = vm.vm().GetDirtyLog();
  if (log.ok()) return log;
  return AboutVm(InFields(log.status(), {{"vm", ""}}), vm.name());
}

absl::StatusOr<SealedLog> Seal(ManagedVm& vm, const mmu::LogCall& call,
                               uint64_t acknowledged_epoch) {
  SealedLog sealed;
  absl::StatusOr<mmu::SealOutcome> outcome =
      vm.vm().SealDirtyLog(call, acknowledged_epoch, &sealed.cost);
  if (!outcome.ok()) return AboutLog(outcome.status(), vm.name());
  sealed.outcome = *std::move(outcome);
  return sealed;
}

absl::StatusOr<ClearedPages> Clear(ManagedVm& vm, const mmu::LogCall& call,
                                   uint64_t epoch, const NamedPages& pages,
                                   const ClearCalls& calls) {
  ClearedPages cleared;
  uint64_t done = 0;
  // Runs once even for an empty range, so that the same errors are returned as
  // for a range with pages.
  do {
    if (absl::Status status = calls.keep_going(); !status.ok()) return status;
    const uint64_t count = std::min(kClearStepPages, pages.page_count - done);
    const auto words =
        absl::MakeConstSpan(pages.mask).subspan(done / 64, (count + 63) / 64);
    const absl::StatusOr<mmu::ClearResult> step = vm.vm().ClearDirtyLog(
        Now(call), pages.slot, epoch, pages.first_page + done, count, words,
        &cleared.cost);
    if (!step.ok()) return AboutLog(step.status(), vm.name());
    calls.part_done();
    Add(*step, &cleared.result);
    done += count;
  } while (done < pages.page_count);
  return cleared;
}

absl::StatusOr<mmu::AcknowledgeResult> Acknowledge(ManagedVm& vm,
                                                   const mmu::LogCall& call,
                                                   uint64_t epoch,
                                                   const NamedPages* pages) {
  absl::StatusOr<mmu::AcknowledgeResult> result =
      pages == nullptr ? vm.vm().AcknowledgePages(call, epoch)
                       : vm.vm().AcknowledgePages(
                             call, epoch, pages->slot, pages->first_page,
                             pages->page_count, pages->mask);
  if (!result.ok()) return AboutLog(result.status(), vm.name());
  return result;
}

}  // namespace mmud
