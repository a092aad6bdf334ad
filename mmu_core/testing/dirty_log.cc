#include "mmu_core/testing/dirty_log.h"

#include <atomic>
#include <memory>

#include "absl/types/optional.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

LogClaim TestClaim() {
  return {.key = {.bytes = {'t', 'e', 's', 't'}}, .owner = "test"};
}

LogCall TestCall() {
  return {.key = TestClaim().key, .now = MonotonicTime::Now()};
}

DirtyLogStart TestStart(const DirtyLogConfig& config) {
  static std::atomic<uint64_t> ids = 0;
  DirtyLogStart start;
  start.id = {.high = 0x7e57, .low = ids.fetch_add(1) + 1};
  start.claim = TestClaim();
  start.config = config;
  start.now = MonotonicTime::Now();
  return start;
}

absl::Status StartLog(Vm& vm, const DirtyLogConfig& config, MmuCost* cost) {
  return vm.StartDirtyLog(TestStart(config), cost).status();
}

absl::StatusOr<StopResult> StopLog(Vm& vm, RecoverOnStop recover,
                                   Undelivered undelivered, MmuCost* cost) {
  return vm.StopDirtyLog(
      {.by = TestCall(), .undelivered = undelivered, .recover = recover}, cost);
}

absl::Status ReadLog(Vm& vm, uint32_t slot, uint64_t epoch, uint64_t first_page,
                     absl::Span<uint64_t> words) {
  if (epoch == 0) {
    if (absl::Status s = vm.TakeInNotedPages(); !s.ok()) return s;
  }
  return vm.ReadDirtyLog(absl::nullopt, slot, epoch, first_page, words);
}

absl::StatusOr<ClearResult> ClearLog(Vm& vm, uint32_t slot, uint64_t epoch,
                                     uint64_t first_page, uint64_t page_count,
                                     absl::Span<const uint64_t> mask,
                                     MmuCost* cost) {
  return vm.ClearDirtyLog(TestCall(), slot, epoch, first_page, page_count, mask,
                          cost);
}

absl::StatusOr<ClearResult> ClearAndDeliver(Vm& vm, uint32_t slot,
                                            uint64_t epoch, uint64_t first_page,
                                            uint64_t page_count,
                                            absl::Span<const uint64_t> mask,
                                            MmuCost* cost) {
  const absl::StatusOr<ClearResult> cleared =
      ClearLog(vm, slot, epoch, first_page, page_count, mask, cost);
  if (!cleared.ok()) return cleared;
  const absl::StatusOr<AcknowledgeResult> delivered = vm.AcknowledgePages(
      TestCall(), epoch, slot, first_page, page_count, mask);
  // Another thread of the test may have stopped the log in between.
  MMU_CHECK(delivered.ok() ||
            DetailOf(delivered.status()).reason == Reason::kDirtyLogOff);
  return cleared;
}

absl::StatusOr<SealedSlot> SealLog(Vm& vm, uint32_t slot, MmuCost* cost) {
  const absl::StatusOr<SealOutcome> outcome =
      vm.SealDirtyLog(TestCall(), /*acknowledged_epoch=*/0, cost);
  if (!outcome.ok()) return outcome.status();
  SealedSlot sealed;
  sealed.epoch = outcome->epoch;
  for (const SlotSeal& of : outcome->slots) {
    if (of.slot != slot) continue;
    sealed.dirty_page_count = of.fresh_page_count + of.merged_page_count;
    sealed.merged_page_count = of.merged_page_count;
  }
  return sealed;
}

std::vector<uint64_t> SealAndList(Vm& vm, uint32_t slot, uint64_t* epoch) {
  const absl::StatusOr<SealedSlot> seal = SealLog(vm, slot);
  MMU_CHECK(seal.ok());
  if (epoch != nullptr) *epoch = seal->epoch;
  const std::shared_ptr<SlotLog> log = vm.state().dirty_log.FindSlot(slot);
  MMU_CHECK(log != nullptr);
  std::vector<uint64_t> words(log->word_count());
  MMU_CHECK(ReadLog(vm, slot, seal->epoch, 0, absl::MakeSpan(words)).ok());
  std::vector<uint64_t> pages;
  for (uint64_t page = 0; page < log->npages(); ++page) {
    if ((words[page / 64] >> page % 64 & 1) != 0) pages.push_back(page);
  }
  MMU_CHECK(pages.size() == seal->dirty_page_count);
  return pages;
}

}  // namespace mmu::testing
