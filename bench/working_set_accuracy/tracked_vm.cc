#include "bench/working_set_accuracy/tracked_vm.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vcpu/access_outcome.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm_state.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu::bench {
namespace {

std::unique_ptr<Vm> MakeVm(const TlbStaleness& staleness, uint64_t pages) {
  VmConfig config;
  if (staleness.size != TlbStaleness::Size::kDaemon) {
    config.tlb = {.flushes = TlbOptions::Flushes::kPrecise,
                  .evictions = TlbOptions::Evictions::kNever};
  }
  MemslotConfig slot;
  slot.size_bytes = pages << kPageShift;
  slot.backing = BackingKind::kMetadataOnly;
  config.memslots.push_back(slot);
  absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
  MMU_CHECK(vm.ok());
  return *std::move(vm);
}

}  // namespace

TrackedVm::TrackedVm(const TlbStaleness& staleness, uint64_t pages)
    : staleness_(staleness), pages_(pages), vm_(MakeVm(staleness, pages)) {
  if (staleness.size == TlbStaleness::Size::kLimited) {
    limit_.emplace(staleness.entries, staleness.ways);
  }
  // Writes set the Dirty bits, so that no later write has to walk for one.
  for (uint64_t page = 0; page < pages; ++page) {
    // A TLB without a limit would keep all of them, which takes time.
    if (page % 1024 == 0) FlushTlb();
    uint64_t word = 0;
    const AccessOutcome outcome =
        vcpu().Access(Gpa(page << kPageShift), AccessKind::kWrite, &word);
    MMU_CHECK(outcome == AccessOutcome::kDone);
  }
  FlushTlb();
  MakeGeneration(ScanScope::kEveryPage);
}

TrackedVm::~TrackedVm() = default;

Vcpu& TrackedVm::vcpu() const { return *vm_->state().vcpus[0]; }

void TrackedVm::FlushTlb() {
  vcpu().tlb().FlushAll();
  if (limit_.has_value()) limit_->Clear();
  accesses_since_flush_ = 0;
}

void TrackedVm::Access(const GuestAccess& access) {
  if (staleness_.flush_accesses != 0 &&
      accesses_since_flush_ == staleness_.flush_accesses) {
    FlushTlb();
  }
  ++accesses_since_flush_;
  const Gpa gpa(access.address_bytes);
  if (limit_.has_value()) {
    const std::optional<uint64_t> dropped = limit_->Use(ToGfn(gpa).value());
    if (dropped.has_value()) vcpu().tlb().FlushPage(PageNumber(*dropped));
  }
  uint64_t word = 0;
  const AccessOutcome outcome = vcpu().Access(gpa, access.kind, &word);
  MMU_CHECK(outcome == AccessOutcome::kDone);
}

void TrackedVm::MakeGeneration(ScanScope scope) {
  const auto scan = vm_->BeginGeneration({.scope = scope});
  MMU_CHECK(scan.ok());
  while (!(*scan)->done()) MMU_CHECK((*scan)->Next().ok());
  totals_ = (*scan)->totals();
  if (staleness_.at_generations == TlbStaleness::AtGenerations::kFlush) {
    FlushTlb();
  }
}

std::vector<GenerationAge> TrackedVm::Ages() const {
  return HeatOfBlocks(vm_->FindWorkingSet()->View(),
                      GfnRange::Of(Gfn(0), pages_), Level::k4K);
}

std::vector<uint64_t> TrackedVm::WorkingSetPages(
    absl::Span<const uint32_t> windows) const {
  // The times of the generations are not used, nor is the time of the snapshot.
  const std::vector<WorkingSetBin> bins =
      vm_->FindWorkingSet()->TakeSnapshot(MonotonicNanos(), {}).bins;
  std::vector<uint64_t> pages;
  for (const uint32_t window : windows) {
    const auto end = bins.begin() + std::min<size_t>(window, bins.size());
    pages.push_back(std::accumulate(bins.begin(), end, uint64_t{0},
                                    [](uint64_t sum, const WorkingSetBin& bin) {
                                      return sum + bin.pages;
                                    }));
  }
  return pages;
}

}  // namespace mmu::bench
