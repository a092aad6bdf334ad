#include "mmu_core/guest/kernel/guest_kernel.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu {
namespace {

constexpr uint64_t kUserLeaf = gpte::kPresent | gpte::kUser | gpte::kWrite;

}  // namespace

GuestKernel::GuestKernel(GuestCpu& cpu, const GpaSpace& memory,
                         const GuestKernelOptions& options)
    : cpu_(cpu),
      options_(options),
      space_(memory),
      memory_(cpu),
      frames_(memory) {}

absl::Status GuestKernel::Boot() {
  uint64_t end = 0;
  for (const GfnRange& range : space_.ranges()) {
    end = std::max(end, ToGpa(range.end).value());
  }
  if (end == 0 || end > options_.geometry.max_memory_bytes) {
    return absl::InvalidArgumentError(Format(
        "the guest's memory ends at 0x%x; with %s paging its kernel needs some "
        "and can map 0x%x bytes",
        end, std::string(options_.geometry.name),
        options_.geometry.max_memory_bytes));
  }
  int id = 0;
  absl::StatusOr<Process*> first = NewProcess(&id);
  if (!first.ok()) return first.status();
  if (absl::Status s = MapKernel(*(*first)->tables); !s.ok()) return s;
  cpu_.EnablePaging(options_.geometry, (*first)->tables->root());
  memory_.SetDirectMap(options_.geometry.direct_map);
  (*first)->tables->TakePdpteChanged();
  (*first)->must_flush = false;
  running_ = id;
  return memory_.status();
}

// Maps all guest-physical memory with large pages, for the supervisor only.
absl::Status GuestKernel::MapKernel(GuestPageTables& tables) {
  const uint64_t step = options_.geometry.LargePageBytes();
  for (const GfnRange& range : space_.ranges()) {
    const uint64_t start = ToGpa(range.start).value() & ~(step - 1);
    for (uint64_t gpa = start; gpa < ToGpa(range.end).value(); gpa += step) {
      if (!tables.Set(options_.geometry.direct_map + gpa, 2,
                      gpa | gpte::kPresent | gpte::kWrite | gpte::kPageSize |
                          gpte::kAccessed | gpte::kDirty)) {
        return Exhausted();
      }
    }
  }
  return memory_.status();
}

absl::StatusOr<GuestKernel::Process*> GuestKernel::NewProcess(int* id) {
  auto tables =
      std::make_unique<GuestPageTables>(options_.geometry, memory_, frames_);
  if (!tables->Create()) return Exhausted();
  if (running_ != 0) {
    tables->ShareFrom(*Running().tables, options_.geometry.direct_map);
  }
  *id = next_process_++;
  Process& process = processes_[*id];
  process.tables = std::move(tables);
  return &process;
}

absl::StatusOr<int> GuestKernel::CreateProcess() {
  int id = 0;
  if (absl::StatusOr<Process*> process = NewProcess(&id); !process.ok()) {
    return process.status();
  }
  if (!memory_.status().ok()) return memory_.status();
  return id;
}

absl::StatusOr<int> GuestKernel::Fork() {
  int id = 0;
  absl::StatusOr<Process*> child = NewProcess(&id);
  if (!child.ok()) return child.status();
  GuestPageTables& parent = *Running().tables;
  bool enough = true;
  parent.ForEachLeaf(options_.geometry.user_end, [&](Gva gva,
                                                     const GuestPte& pte) {
    uint64_t value = pte.value & ~(gpte::kAccessed | gpte::kDirty);
    if ((value & gpte::kWrite) != 0) {
      value = (value & ~gpte::kWrite) | gpte::kCopyOnWrite;
      parent.Store(pte, value | (pte.value & (gpte::kAccessed | gpte::kDirty)));
    }
    if (!enough || !(*child)->tables->Set(gva, pte.level, value)) {
      enough = false;
      return;
    }
    const uint64_t frames =
        options_.geometry.BytesPerEntry(pte.level) / kPageSize;
    for (uint64_t i = 0; i < frames; ++i) {
      frames_.AddReference(pte.gfn() + i);
    }
  });
  // The parent's TLB may still have writable translations of the shared pages.
  cpu_.LoadCr3(parent.root(), Cr3Load::kFlush);
  if (!memory_.status().ok()) return memory_.status();
  if (!enough) {
    if (absl::Status s = Exit(id); !s.ok()) return s;
    return Exhausted();
  }
  return id;
}

absl::Status GuestKernel::SwitchTo(int process, Cr3Load how) {
  const auto it = processes_.find(process);
  if (it == processes_.end()) {
    return absl::InvalidArgumentError(
        Format("there is no process %d", process));
  }
  Process& next = it->second;
  if (std::exchange(next.must_flush, false)) how = Cr3Load::kFlush;
  next.tables->TakePdpteChanged();
  running_ = process;
  ++stats_.context_switches;
  cpu_.LoadCr3(next.tables->root(), how);
  return memory_.status();
}

absl::Status GuestKernel::Exit(int process) {
  const auto it = processes_.find(process);
  if (it == processes_.end() || process == running_) {
    return absl::InvalidArgumentError(
        Format("process %d %s", process,
               process == running_ ? "is running; switch to another first"
                                   : "does not exist"));
  }
  GuestPageTables& tables = *it->second.tables;
  tables.ForEachLeaf(options_.geometry.user_end,
                     [this](Gva, const GuestPte& pte) { DropLeaf(pte); });
  tables.Destroy(options_.geometry.user_end);
  processes_.erase(it);
  return memory_.status();
}

absl::Status GuestKernel::Access(Gva gva, AccessKind kind, uint64_t* word) {
  if (absl::Status s = CheckUserRange(gva, 8); !s.ok()) return s;
  for (int faults = 0; faults < kMaxFaults; ++faults) {
    GuestPageFault fault;
    switch (cpu_.Access(gva, 8, kind, Privilege::kUser, word, &fault)) {
      case GuestCpu::Outcome::kDone:
        return absl::OkStatus();
      case GuestCpu::Outcome::kError:
        return cpu_.status();
      case GuestCpu::Outcome::kFault:
        if (absl::Status s = HandleFault(fault); !s.ok()) return s;
        if (!memory_.status().ok()) return memory_.status();
    }
  }
  return absl::InternalError(
      Format("gva 0x%x faults again and again, whatever the kernel "
             "does: its tables are not in the memory that it had",
             gva.value()));
}

absl::Status GuestKernel::HandleFault(const GuestPageFault& fault) {
  const GuestPte pte = Running().tables->Find(fault.address);
  if (!pte.present()) {
    absl::Status status = MapFresh(fault.address);
    if (Running().tables->TakePdpteChanged()) {
      cpu_.LoadCr3(Running().tables->root(), Cr3Load::kKeep);
    }
    return status;
  }
  if ((fault.error_code & kPferrReserved) != 0) {
    return absl::InternalError(Format(
        "the processor finds a reserved bit in the entry 0x%x for gva 0x%x",
        pte.value, fault.address.value()));
  }
  if ((fault.error_code & kPferrWrite) != 0) {
    if ((pte.value & gpte::kCopyOnWrite) != 0) {
      return Copy(fault.address);
    }
    if ((pte.value & gpte::kWrite) == 0) {
      return absl::PermissionDeniedError(
          Format("process %d writes to read-only memory at 0x%x", running_,
                 fault.address.value()));
    }
  }
  // The entry allows the access: the TLB entry was stale. The kernel returns
  // and the program retries.
  Invlpg(fault.address);
  return absl::OkStatus();
}

absl::Status GuestKernel::MapFresh(Gva gva) {
  if (options_.large_pages == GuestKernelOptions::LargePages::kYes &&
      MapLarge(gva)) {
    return absl::OkStatus();
  }
  const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
  if (!frame.has_value()) return Exhausted();
  if (frame->recycled) memory_.ZeroPage(frame->gfn);
  if (!Running().tables->Set(gva, 1, ToGpa(frame->gfn).value() | kUserLeaf)) {
    frames_.Drop(frame->gfn);
    return Exhausted();
  }
  ++stats_.demand_faults;
  return absl::OkStatus();
}

bool GuestKernel::MapLarge(Gva gva) {
  const GuestPte pte = Running().tables->Find(gva);
  if (pte.level < 2) return false;  // small pages are mapped here
  const uint64_t bytes = options_.geometry.LargePageBytes();
  const std::optional<Gfn> first = frames_.AllocateRun(bytes / kPageSize);
  if (!first.has_value()) return false;
  if (!Running().tables->Set(
          gva, 2, ToGpa(*first).value() | kUserLeaf | gpte::kPageSize)) {
    for (uint64_t i = 0; i < bytes / kPageSize; ++i) frames_.Drop(*first + i);
    return false;
  }
  ++stats_.large_pages;
  ++stats_.demand_faults;
  return true;
}

absl::Status GuestKernel::Copy(Gva gva) {
  absl::StatusOr<GuestPte> small = FindSmall(gva);
  if (!small.ok()) return small.status();
  const uint64_t rights = gpte::kPresent | gpte::kUser | gpte::kWrite;
  if (frames_.references(small->gfn()) == 1) {
    // The other sharers have copied the page already, or have ended.
    Running().tables->Store(*small, ToGpa(small->gfn()).value() | rights);
  } else {
    const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
    if (!frame.has_value()) return Exhausted();
    memory_.CopyPage(small->gfn(), frame->gfn);
    Running().tables->Store(*small, ToGpa(frame->gfn).value() | rights);
    frames_.Drop(small->gfn());
    ++stats_.copies;
  }
  Invlpg(gva);
  return absl::OkStatus();
}

absl::StatusOr<GuestPte> GuestKernel::FindSmall(Gva gva) {
  GuestPte pte = Running().tables->Find(gva);
  if (pte.present() && pte.level > 1) {
    if (!Running().tables->SplitLarge(pte)) return Exhausted();
    ++stats_.large_splits;
    // One INVLPG with any address of a large page invalidates the whole page.
    Invlpg(gva);
    pte = Running().tables->Find(gva);
  }
  return pte;
}

absl::Status GuestKernel::Unmap(Gva gva, uint64_t bytes) {
  if (absl::Status s = CheckUserRange(gva, bytes); !s.ok()) return s;
  for (Gva at = gva; at < gva + bytes; at += kPageSize) {
    absl::StatusOr<GuestPte> pte = FindSmall(at);
    if (!pte.ok()) return pte.status();
    if (!pte->present()) continue;
    Running().tables->Store(*pte, 0);
    Invlpg(at);
    frames_.Drop(pte->gfn());
  }
  return memory_.status();
}

absl::Status GuestKernel::Protect(Gva gva, uint64_t bytes, Writable writable) {
  if (absl::Status s = CheckUserRange(gva, bytes); !s.ok()) return s;
  for (Gva at = gva; at < gva + bytes; at += kPageSize) {
    absl::StatusOr<GuestPte> pte = FindSmall(at);
    if (!pte.ok()) return pte.status();
    if (!pte->present()) continue;
    uint64_t value = pte->value & ~(gpte::kWrite | gpte::kCopyOnWrite);
    if (writable == Writable::kYes) {
      value |= frames_.references(pte->gfn()) > 1 ? gpte::kCopyOnWrite
                                                  : gpte::kWrite;
    }
    if (value == pte->value) continue;
    Running().tables->Store(*pte, value);
    if ((pte->value & ~value & gpte::kWrite) != 0) Invlpg(at);
  }
  return memory_.status();
}

absl::Status GuestKernel::Exhausted() const {
  // A failed access of the host must not be reported as exhausted memory.
  if (!memory_.status().ok()) return memory_.status();
  return absl::ResourceExhaustedError(
      "the guest's memory is used up; give it more, or let processes exit");
}

absl::Status GuestKernel::CheckUserRange(Gva gva, uint64_t bytes) const {
  const uint64_t end = options_.geometry.user_end.value();
  if (gva.value() < end && bytes <= end - gva.value() &&
      (bytes < kPageSize ||
       (IsPageAligned(gva.value()) && IsPageAligned(bytes)))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      Format("0x%x, %d bytes: programs have whole pages below 0x%x",
             gva.value(), bytes, end));
}

void GuestKernel::DropLeaf(const GuestPte& pte) {
  const uint64_t frames =
      options_.geometry.BytesPerEntry(pte.level) / kPageSize;
  for (uint64_t i = 0; i < frames; ++i) frames_.Drop(pte.gfn() + i);
}

void GuestKernel::Invlpg(Gva gva) {
  ++stats_.invlpgs;
  cpu_.Invlpg(gva);
}

}  // namespace mmu
