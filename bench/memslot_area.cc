#include "bench/memslot_area.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kFirstGpa = uint64_t{4} << 30;
constexpr uint64_t kElsewhereGpa = uint64_t{64} << 30;

Gpa GpaOf(uint64_t page) { return Gpa(kFirstGpa + (page << kPageShift)); }

absl::Status Wrong(uint64_t page, uint64_t found, uint64_t expected) {
  return absl::DataLossError(
      absl::StrFormat("memslot_perf: page %d has 0x%x where 0x%x was written",
                      page, found, expected));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemslotArea>> MemslotArea::Create(
    uint64_t slots, VmConfig::SlotZap slot_zap) {
  MMU_CHECK(slots >= 1 && slots <= kPages);
  const uint64_t pages_per_slot = kPages / slots;
  VmConfig config;
  config.slot_zap = slot_zap;
  for (uint64_t i = 0; i < slots; ++i) {
    const uint64_t first = i * pages_per_slot;
    MemslotConfig slot;
    slot.slot = static_cast<uint32_t>(i);
    slot.gpa = GpaOf(first);
    slot.size_bytes = (i + 1 == slots ? kPages - first : pages_per_slot)
                      << kPageShift;
    config.memslots.push_back(slot);
  }
  absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
  if (!vm.ok()) return vm.status();
  std::unique_ptr<MemslotArea> area(new MemslotArea(*std::move(vm)));
  area->pages_per_slot_ = pages_per_slot;
  {
    VmState& state = area->vm_->state();
    MutexLock lock(state.slots.slots_lock);
    area->slots_ = state.slots.Active(0).owned_slots();
  }
  area->threads_ = std::make_unique<VcpuThreads>(*area->vm_);
  return area;
}

uint64_t MemslotArea::SlotOf(uint64_t page) const {
  return std::min(page / pages_per_slot_, slots() - 1);
}

absl::Status MemslotArea::ReadAndWrite(uint64_t first, uint64_t end,
                                       uint64_t old_value, uint64_t new_value) {
  threads_->Run([=](Vcpu& vcpu) {
    for (uint64_t page = first; page < end; ++page) {
      uint64_t word = 0;
      absl::Status status =
          AccessOrError(vcpu, GpaOf(page), AccessKind::kRead, &word);
      if (status.ok() && word != old_value) {
        status = Wrong(page, word, old_value);
      }
      word = new_value;
      if (status.ok()) {
        status = AccessOrError(vcpu, GpaOf(page), AccessKind::kWrite, &word);
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  });
  return threads_->status();
}

void MemslotArea::StartCounting(uint64_t first, uint64_t end,
                                MayMiss may_miss) {
  stop_.store(false);
  threads_->Start([=, this](Vcpu& vcpu) {
    std::vector<uint64_t> written(end - first);
    for (bool last = false; !last;) {
      last = stop_.load();
      for (uint64_t page = first; page < end; ++page) {
        uint64_t& expected = written[page - first];
        uint64_t word = 0;
        AccessOutcome outcome =
            vcpu.Access(GpaOf(page), AccessKind::kRead, &word);
        if (outcome == AccessOutcome::kDone) {
          if (word != expected) return Wrong(page, word, expected);
          word = expected + 1;
          outcome = vcpu.Access(GpaOf(page), AccessKind::kWrite, &word);
          if (outcome == AccessOutcome::kDone) ++expected;
        }
        if (outcome != AccessOutcome::kDone &&
            !(outcome == AccessOutcome::kEmulated &&
              may_miss == MayMiss::kYes)) {
          return absl::InternalError(absl::StrFormat(
              "memslot_perf: page %d of a slot that does not move was not "
              "there",
              page));
        }
      }
    }
    return absl::OkStatus();
  });
}

absl::Status MemslotArea::StopCounting() {
  stop_.store(true);
  threads_->Wait();
  return threads_->status();
}

void MemslotArea::Unmap(uint64_t first, uint64_t end) {
  while (first < end) {
    const Memslot& in = slot(SlotOf(first));
    const uint64_t slot_first =
        in.base_gfn - ToGfn(Gpa(kFirstGpa));  // the slot's first page
    const uint64_t stop = std::min(end, slot_first + in.npages);
    const HvaRange range = {in.hva + ((first - slot_first) << kPageShift),
                            in.hva + ((stop - slot_first) << kPageShift)};
    InvalidateRangeStart(vm_->state(), range, MayYield::kYes);
    MMU_CHECK(madvise(in.backing->PointerTo(range.start),
                      range.end - range.start, MADV_DONTNEED) == 0);
    InvalidateRangeEnd(vm_->state(), range);
    first = stop;
  }
}

absl::Status MemslotArea::MoveLastSlot(Place place) {
  const Memslot& last = slot(slots() - 1);
  MemslotConfig config;
  config.slot = last.id;
  config.gpa =
      place == Place::kElsewhere ? Gpa(kElsewhereGpa) : ToGpa(last.base_gfn);
  config.size_bytes = last.npages << kPageShift;
  return vm_->SetMemslot(config);
}

std::atomic_ref<uint64_t> MemslotArea::Word(uint64_t page) {
  const Memslot& in = slot(SlotOf(page));
  return std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(
      in.backing->PointerTo(in.HvaOf(ToGfn(GpaOf(page))))));
}

}  // namespace mmu::bench
