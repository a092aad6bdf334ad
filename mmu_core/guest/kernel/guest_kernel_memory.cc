// The memory of the running process: faults, unmapping, protection.

#include <algorithm>
#include <optional>
#include <utility>

#include "mmu_core/base/format.h"
#include "mmu_core/guest/kernel/guest_kernel.h"
#include "mmu_core/guest/kernel/kernel_section.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu {
namespace {

constexpr uint64_t kUserLeaf = gpte::kPresent | gpte::kUser | gpte::kWrite;

// The end of the naturally aligned `bytes`, a power of two, around `gva`.
Gva EndOf(Gva gva, uint64_t bytes) {
  return Gva((gva.value() & ~(bytes - 1)) + bytes);
}

}  // namespace

absl::Status GuestKernel::Access(Gva gva, AccessKind kind, uint64_t* word) {
  if (absl::Status s = CheckUserRange(gva, 8); !s.ok()) return s;
  if (cpu_.running() == 0) {
    return absl::FailedPreconditionError("the CPU is offline");
  }
  for (int faults = 0; faults < kMaxFaults; ++faults) {
    cpu_.TakeInterrupts();
    GuestPageFault fault;
    switch (cpu_.cpu().Access(gva, 8, kind, Privilege::kUser, word, &fault)) {
      case GuestCpu::Outcome::kDone:
        return absl::OkStatus();
      case GuestCpu::Outcome::kError:
        return cpu_.cpu().status();
      case GuestCpu::Outcome::kFault: {
        const Section section(*this);
        if (!section.status().ok()) return section.status();
        if (absl::Status s = HandleFault(fault); !s.ok()) return s;
        if (!state_->memory.status().ok()) return state_->memory.status();
      }
    }
  }
  return absl::InternalError(
      Format("gva 0x%x faults again and again, whatever the kernel "
             "does: its tables are not in the memory that it had",
             gva.value()));
}

absl::Status GuestKernel::HandleFault(const GuestPageFault& fault) {
  const GuestPte pte = tables().Find(fault.address);
  if (!pte.present()) {
    if (absl::Status s = MapFresh(fault.address); !s.ok()) return s;
  }
  if (cpu_.HasOldPdptes(Running())) {
    // This CPU or another one has mapped the first page below a PDPTE.
    cpu_.Run(Running(), Cr3Load::kFlush);
    return absl::OkStatus();
  }
  if (!pte.present()) return absl::OkStatus();
  if ((fault.error_code & kPferrReserved) != 0) {
    return absl::InternalError(Format(
        "the processor finds a reserved bit in the entry 0x%x for gva 0x%x",
        pte.value, fault.address.value()));
  }
  if ((fault.error_code & kPferrWrite) != 0) {
    if ((pte.value & gpte::kCopyOnWrite) != 0) return Copy(fault.address);
    if ((pte.value & gpte::kWrite) == 0) {
      return absl::PermissionDeniedError(
          Format("process %d writes to read-only memory at 0x%x",
                 cpu_.running(), fault.address.value()));
    }
  }
  // The entry allows the access: another CPU was faster, or the processor had
  // cached an older entry, which the fault has dropped. The program tries
  // again.
  return absl::OkStatus();
}

absl::Status GuestKernel::MapFresh(Gva gva) {
  if (state_->options.large_pages == GuestKernelOptions::LargePages::kYes &&
      MapLarge(gva)) {
    return absl::OkStatus();
  }
  FrameAllocator& frames = state_->frames;
  const std::optional<FrameAllocator::Frame> frame = frames.Allocate();
  if (!frame.has_value()) return Exhausted();
  if (frame->recycled) state_->memory.ZeroPage(frame->gfn);
  if (!tables().Set(gva, 1, ToGpa(frame->gfn).value() | kUserLeaf)) {
    frames.Drop(frame->gfn);
    return Exhausted();
  }
  ++stats_.demand_faults;
  return absl::OkStatus();
}

bool GuestKernel::MapLarge(Gva gva) {
  if (tables().Find(gva).level < 2)
    return false;  // small pages are mapped here
  const uint64_t pages = state_->options.geometry.LargePageBytes() / kPageSize;
  const std::optional<Gfn> first = state_->frames.AllocateRun(pages);
  if (!first.has_value()) return false;
  if (!tables().Set(gva, 2,
                    ToGpa(*first).value() | kUserLeaf | gpte::kPageSize)) {
    for (uint64_t i = 0; i < pages; ++i) state_->frames.Drop(*first + i);
    return false;
  }
  ++stats_.large_pages;
  ++stats_.demand_faults;
  return true;
}

absl::Status GuestKernel::Copy(Gva gva) {
  const absl::StatusOr<GuestPte> small = FindSmall(gva);
  if (!small.ok()) return small.status();
  const Gfn old = small->gfn();
  if (state_->frames.references(old) == 1) {
    tables().Store(*small, ToGpa(old).value() | kUserLeaf);
    return absl::OkStatus();
  }
  const std::optional<FrameAllocator::Frame> frame = state_->frames.Allocate();
  if (!frame.has_value()) return Exhausted();
  state_->memory.CopyPage(old, frame->gfn);
  // While any CPU may read the old page, none may write to the new one. So the
  // entry is not present until all CPUs have forgotten the old one.
  tables().Store(*small, 0);
  Change change;
  change.stale.AddPage(gva);
  change.freed.push_back({old, 1});
  if (absl::Status s = Finish(change); !s.ok()) return s;
  tables().Store(*small, ToGpa(frame->gfn).value() | kUserLeaf);
  ++stats_.copies;
  return absl::OkStatus();
}

absl::StatusOr<GuestPte> GuestKernel::FindSmall(Gva gva) {
  const GuestPte pte = tables().Find(gva);
  if (!pte.present() || pte.level == 1) return pte;
  if (!tables().SplitLarge(pte)) return Exhausted();
  ++stats_.large_splits;
  // The small pages grant the same as the large one did, so for a moment it
  // does not matter which of them a CPU has cached. One INVLPG with any address
  // of a large page drops it as a whole.
  Change change;
  change.stale.AddPage(gva);
  if (absl::Status s = Finish(change); !s.ok()) return s;
  return tables().Find(gva);
}

absl::Status GuestKernel::Unmap(Gva gva, uint64_t bytes) {
  if (absl::Status s = CheckUserRange(gva, bytes); !s.ok()) return s;
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  return UnmapPages(gva, gva + bytes);
}

absl::Status GuestKernel::UnmapPages(Gva gva, Gva end) {
  const PagingGeometry& geometry = state_->options.geometry;
  Change change;
  absl::Status status;
  for (Gva at = gva; at < end;) {
    GuestPte pte = tables().Find(at);
    const uint64_t entry_bytes = geometry.BytesPerEntry(pte.level);
    const Gva entry_end = EndOf(at, entry_bytes);
    if (!pte.present()) {
      at = entry_end;
      continue;
    }
    Gva next = entry_end;
    if (pte.level > 1 && (entry_end - at < entry_bytes || end < entry_end)) {
      const absl::StatusOr<GuestPte> small = FindSmall(at);
      if (!small.ok()) {
        status = small.status();
        break;
      }
      pte = *small;
      next = at + kPageSize;
    }
    tables().Store(pte, 0);
    change.stale.AddPage(at);
    change.freed.push_back({pte.gfn(), FramesOf(pte)});
    at = next;
  }
  if (status.ok()) FreeTables(gva, end, &change);
  // What was unmapped before an error is invalidated, too.
  if (absl::Status s = Finish(change); !s.ok()) return s;
  return status.ok() ? state_->memory.status() : status;
}

void GuestKernel::FreeTables(Gva gva, Gva end, Change* change) {
  const uint64_t bytes = state_->options.geometry.LargePageBytes();
  for (Gva at = EndOf(gva - 1, bytes); at < end && bytes <= end - at;
       at += bytes) {
    const GuestPte table = tables().FindAt(at, 2);
    if (table.level != 2 || !table.present() || table.leaf()) continue;
    tables().Store(table, 0);
    // Needed even if no entry of the table is present.
    change->stale.AddPage(at);
    change->freed.push_back({table.gfn(), 1});
    ++stats_.tables_freed;
  }
}

absl::Status GuestKernel::Protect(Gva gva, uint64_t bytes, Writable writable) {
  if (absl::Status s = CheckUserRange(gva, bytes); !s.ok()) return s;
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  return ProtectPages(gva, gva + bytes, writable);
}

absl::Status GuestKernel::ProtectPages(Gva gva, Gva end, Writable writable) {
  Change change;
  absl::Status status;
  for (Gva at = gva; at < end; at += kPageSize) {
    const absl::StatusOr<GuestPte> pte = FindSmall(at);
    if (!pte.ok()) {
      status = pte.status();
      break;
    }
    if (!pte->present()) continue;
    uint64_t value = pte->value & ~(gpte::kWrite | gpte::kCopyOnWrite);
    if (writable == Writable::kYes) {
      value |= state_->frames.references(pte->gfn()) > 1 ? gpte::kCopyOnWrite
                                                         : gpte::kWrite;
    }
    if (value == pte->value) continue;
    tables().Store(*pte, value);
    if ((pte->value & ~value & gpte::kWrite) != 0) change.stale.AddPage(at);
  }
  if (absl::Status s = Finish(change); !s.ok()) return s;
  return status.ok() ? state_->memory.status() : status;
}

absl::Status GuestKernel::CheckUserRange(Gva gva, uint64_t bytes) const {
  const uint64_t end = state_->options.geometry.user_end.value();
  if (gva.value() < end && bytes <= end - gva.value() &&
      (bytes < kPageSize ||
       (IsPageAligned(gva.value()) && IsPageAligned(bytes)))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      Format("0x%x, %d bytes: programs have whole pages below 0x%x",
             gva.value(), bytes, end));
}

}  // namespace mmu
