#include "mmu_core/guest/hypervisor/l1_hypervisor.h"

#include <optional>
#include <string>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu {
namespace {

// An ignored bit of the entry: the page is write-protected to detect writes,
// not to forbid them.
constexpr uint64_t kTracked = guest_entry::Bit(52);
// Another ignored bit: the page may have been written before it was made
// read-only.
constexpr uint64_t kWasWritable = guest_entry::Bit(53);

}  // namespace

absl::Status L1Hypervisor::Memory::Access(Gpa gpa, int size_bytes,
                                          AccessKind kind, uint64_t* word) {
  if (cpu_.Access(gpa, size_bytes, kind, word)) return absl::OkStatus();
  return cpu_.status();
}

L1Hypervisor::L1Hypervisor(L1Cpu& cpu, const GpaSpace& memory,
                           const L1HypervisorOptions& options)
    : cpu_(cpu),
      options_(options),
      format_(options.tables == GuestTables::kEpt ? NestedEntryFormat::kEpt
                                                  : NestedEntryFormat::kNpt),
      memory_(cpu),
      frames_(memory),
      tables_(format_, options.root_level, memory_, frames_) {
  MMU_CHECK(options.tables != GuestTables::kLegacy);
}

absl::Status L1Hypervisor::Boot() {
  if (!tables_.Create()) return Exhausted();
  return memory_.status();
}

// --- L2 runs. ---

absl::Status L1Hypervisor::Access(Gpa nested, AccessKind kind, uint64_t* word) {
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  for (int exits = 0; exits < kMaxExits; ++exits) {
    Enter();
    NestedExit exit;
    switch (cpu_.L2Access(nested, 8, kind, word, &exit)) {
      case L1Cpu::Outcome::kDone:
        return absl::OkStatus();
      case L1Cpu::Outcome::kError:
        return cpu_.status();
      case L1Cpu::Outcome::kExit:
        in_l2_ = false;
        ++stats_.exits;
        if (absl::Status s = HandleExit(exit, kind); !s.ok()) return s;
        if (!memory_.status().ok()) return memory_.status();
    }
  }
  return absl::InternalError(
      Format("nested gpa 0x%x exits again and again, whatever L1 does: "
             "its tables are not in the memory that it had",
             nested.value()));
}

void L1Hypervisor::Enter() {
  if (std::exchange(in_l2_, true)) return;
  if (std::exchange(must_invalidate_, false)) {
    ++stats_.invalidations;
    if (options_.tables == GuestTables::kNpt) {
      cpu_.FlushAsid();
    } else if (options_.invept == L1HypervisorOptions::Invept::kGlobal) {
      cpu_.InveptGlobal();
    } else {
      cpu_.InveptSingleContext(tables_.root());
    }
  }
  NestedPaging paging = {.tables = options_.tables,
                         .root = tables_.root(),
                         .ept = {.root_level = options_.root_level,
                                 .ad_bits = options_.ad_bits,
                                 .exec_only = options_.exec_only},
                         .l1 = {}};
  paging.l1.cr0 = kCr0Pg | kCr0Wp;
  paging.l1.cr4 =
      kCr4Pae | (options_.root_level == Level::k256T ? kCr4La57 : 0);
  paging.l1.efer = kEferLma | kEferNx;
  cpu_.EnterL2(paging);
}

void L1Hypervisor::Leave() {
  if (std::exchange(in_l2_, false)) cpu_.LeaveL2();
}

absl::Status L1Hypervisor::HandleExit(const NestedExit& exit, AccessKind kind) {
  const NestedPte pte = tables_.Find(exit.nested_gpa);
  if (exit.fault.kind == GuestFault::Kind::kEptMisconfiguration ||
      (exit.fault.kind == GuestFault::Kind::kNestedPageFault &&
       (exit.fault.code & kPferrReserved) != 0)) {
    return absl::InternalError(Format(
        "the processor takes the entry 0x%x for nested gpa 0x%x for a bad one",
        pte.value, exit.nested_gpa.value()));
  }
  if (!pte.present) return MapFresh(exit.nested_gpa);
  const bool npt = options_.tables == GuestTables::kNpt;
  const uint64_t value = pte.value;
  bool allowed = true;
  switch (kind) {
    case AccessKind::kWrite:
      if ((value & kTracked) != 0) {
        // No INVEPT: the new entry only adds a right, and the violation itself
        // has invalidated the processor's translation.
        tables_.Store(pte, (value & ~kTracked) | format_.write);
        return absl::OkStatus();
      }
      allowed = (value & format_.write) != 0;
      break;
    case AccessKind::kRead:
      allowed = npt || (value & guest_entry::kEptRead) != 0;
      break;
    case AccessKind::kExec:
      allowed = npt ? (value & guest_entry::kNx) == 0
                    : (value & guest_entry::kEptExec) != 0;
      break;
  }
  if (!allowed) {
    return absl::PermissionDeniedError(
        Format("L2's %s at nested gpa 0x%x: the entry 0x%x does not grant it",
               std::string(ToString(kind)), exit.nested_gpa.value(), value));
  }
  // The processor's translation was stale; the exit has invalidated it.
  return absl::OkStatus();
}

absl::Status L1Hypervisor::MapFresh(Gpa nested) {
  for (Level level = options_.max_page; level > Level::k4K;
       level = ChildOf(level)) {
    if (MapLarge(nested, level)) return absl::OkStatus();
  }
  const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
  if (!frame.has_value()) return Exhausted();
  if (frame->recycled) memory_.ZeroPage(frame->gfn);
  if (!tables_.Set(nested, Level::k4K,
                   tables_.MakeLeaf(frame->gfn, Level::k4K, format_.full))) {
    frames_.Drop(frame->gfn);
    return Exhausted();
  }
  ++stats_.demand_pages;
  return absl::OkStatus();
}

bool L1Hypervisor::MapLarge(Gpa nested, Level level) {
  // An entry below `level` means that smaller pages are mapped beside it.
  if (tables_.Find(nested).level < level) return false;
  const std::optional<Gfn> first = frames_.AllocateRun(PagesPer(level));
  if (!first.has_value()) return false;
  if (!tables_.Set(nested, level,
                   tables_.MakeLeaf(*first, level, format_.full))) {
    for (uint64_t i = 0; i < PagesPer(level); ++i) frames_.Drop(*first + i);
    return false;
  }
  ++stats_.large_pages;
  ++stats_.demand_pages;
  return true;
}

// --- L1 changes L2's memory. ---

// No invalidation: the processor may keep its cached translation of the large
// page, since the small pages translate to the same frames.
bool L1Hypervisor::Split(const NestedPte& pte) {
  if (!tables_.Split(pte)) return false;
  ++stats_.splits;
  return true;
}

absl::StatusOr<NestedPte> L1Hypervisor::FindWithin(Gpa nested, Gpa end) {
  for (;;) {
    const NestedPte pte = tables_.Find(nested);
    if (!memory_.status().ok()) return memory_.status();
    const uint64_t bytes = BytesPer(pte.level);
    if (!pte.present || pte.level == Level::k4K ||
        (nested.value() % bytes == 0 && end - nested >= bytes)) {
      return pte;
    }
    if (!Split(pte)) return Exhausted();
  }
}

absl::Status L1Hypervisor::ForEachWithin(
    Gpa nested, uint64_t bytes, absl::FunctionRef<void(const NestedPte&)> fn) {
  if (absl::Status s = CheckRange(nested, bytes); !s.ok()) return s;
  Leave();
  const Gpa end = nested + bytes;
  for (Gpa at = nested; at < end;) {
    absl::StatusOr<NestedPte> pte = FindWithin(at, end);
    if (!pte.ok()) return pte.status();
    if (pte->present) fn(*pte);
    at += pte->present ? BytesPer(pte->level) : kPageSize;
  }
  return memory_.status();
}

absl::Status L1Hypervisor::Unmap(Gpa nested, uint64_t bytes) {
  return ForEachWithin(nested, bytes, [this](const NestedPte& pte) {
    tables_.Store(pte, 0);
    must_invalidate_ = true;
    for (uint64_t i = 0; i < PagesPer(pte.level); ++i) {
      frames_.Drop(pte.gfn() + i);
    }
  });
}

absl::Status L1Hypervisor::Protect(Gpa nested, uint64_t bytes, Rights rights) {
  if (rights == Rights::kExec && !options_.exec_only) {
    return absl::InvalidArgumentError(
        "pages that can be executed and not read need EPT with exec_only");
  }
  return ForEachWithin(nested, bytes, [this, rights](const NestedPte& pte) {
    uint64_t value =
        (pte.value & ~(format_.rights | kTracked)) | BitsOf(rights);
    if (!HasDirtyBits() && (pte.value & ~value & format_.write) != 0) {
      value |= kWasWritable;
    }
    if (value == pte.value) return;
    tables_.Store(pte, value);
    // NX is inverted: it denies a right.
    const uint64_t nx = format_.rights & guest_entry::kNx;
    if (((pte.value ^ nx) & ~(value ^ nx) & format_.rights) != 0) {
      must_invalidate_ = true;
    }
  });
}

absl::Status L1Hypervisor::Remap(Gpa nested) {
  if (absl::Status s = CheckRange(nested, kPageSize); !s.ok()) return s;
  Leave();
  absl::StatusOr<NestedPte> pte = FindWithin(nested, nested + kPageSize);
  if (!pte.ok()) return pte.status();
  if (!pte->present) return absl::OkStatus();
  if (frames_.references(pte->gfn()) > 1) {
    return absl::FailedPreconditionError(
        Format("the page at nested gpa 0x%x is aliased", nested.value()));
  }
  const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
  if (!frame.has_value()) return Exhausted();
  memory_.CopyPage(pte->gfn(), frame->gfn);
  tables_.Store(
      *pte, (pte->value & ~guest_entry::kAddress) | ToGpa(frame->gfn).value());
  must_invalidate_ = true;
  frames_.Drop(pte->gfn());
  return memory_.status();
}

absl::Status L1Hypervisor::Alias(Gpa from, Gpa to) {
  if (absl::Status s = CheckRange(from, kPageSize); !s.ok()) return s;
  if (absl::Status s = CheckRange(to, kPageSize); !s.ok()) return s;
  Leave();
  absl::StatusOr<NestedPte> pte = FindWithin(from, from + kPageSize);
  if (!pte.ok()) return pte.status();
  if (!pte->present || tables_.Find(to).present) {
    return absl::FailedPreconditionError(
        Format("nested gpa 0x%x has to be mapped and 0x%x not", from.value(),
               to.value()));
  }
  const uint64_t clean = ~(format_.accessed | format_.dirty);
  if (!tables_.Set(to, Level::k4K, pte->value & clean)) return Exhausted();
  frames_.AddReference(pte->gfn());
  return memory_.status();
}

absl::Status L1Hypervisor::Promote(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  Leave();
  const NestedPte link = tables_.Find(nested, Level::k2M);
  if (link.level != Level::k2M || !link.present || link.leaf()) {
    return absl::FailedPreconditionError(Format(
        "there are no small pages around nested gpa 0x%x", nested.value()));
  }
  // The common rights of the small pages. Tracked pages count as writable, like
  // pages that are not mapped yet.
  std::optional<uint64_t> rights;
  uint64_t past = 0;
  bool tracked = false;
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const NestedPte pte = tables_.Child(link, i);
    uint64_t granted = pte.present ? pte.value & format_.rights : format_.full;
    if ((pte.value & kTracked) != 0) {
      granted |= format_.write;
      tracked = true;
    } else if (!HasDirtyBits() && (pte.value & format_.write) != 0) {
      past |= kWasWritable;
    }
    if (rights.value_or(granted) != granted ||
        (pte.present && frames_.references(pte.gfn()) > 1)) {
      return absl::FailedPreconditionError(Format(
          "the pages around nested gpa 0x%x are not alike", nested.value()));
    }
    rights = granted;
    past |= pte.value & (format_.accessed | format_.dirty | kWasWritable);
  }
  if (tracked) rights = (*rights & ~format_.write) | kTracked;
  const std::optional<Gfn> first = frames_.AllocateRun(kEntriesPerTable);
  if (!first.has_value()) {
    return absl::FailedPreconditionError(
        "L1's memory has no aligned 2 MiB left");
  }
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const NestedPte pte = tables_.Child(link, i);
    if (!pte.present) continue;
    memory_.CopyPage(pte.gfn(), *first + static_cast<uint64_t>(i));
    frames_.Drop(pte.gfn());
  }
  tables_.Store(link, tables_.MakeLeaf(*first, Level::k2M, *rights) | past);
  must_invalidate_ = true;
  frames_.Drop(link.gfn());
  ++stats_.merges;
  return memory_.status();
}

absl::Status L1Hypervisor::Demote(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  Leave();
  const NestedPte pte = tables_.Find(nested);
  if (!pte.present || pte.level == Level::k4K) {
    return absl::FailedPreconditionError(
        Format("there is no large page at nested gpa 0x%x", nested.value()));
  }
  if (!Split(pte)) return Exhausted();
  return memory_.status();
}

absl::StatusOr<std::vector<Gfn>> L1Hypervisor::TakeDirty() {
  Leave();
  std::vector<Gfn> dirty;
  tables_.ForEachLeaf([&](Gpa nested, const NestedPte& pte) {
    const uint64_t signs =
        HasDirtyBits() ? format_.dirty : format_.write | kWasWritable;
    if ((pte.value & signs) == 0) return;
    for (uint64_t i = 0; i < PagesPer(pte.level); ++i) {
      dirty.push_back(ToGfn(nested) + i);
    }
    uint64_t value = pte.value & ~signs;
    if (!HasDirtyBits() && (pte.value & format_.write) != 0) value |= kTracked;
    tables_.Store(pte, value);
    if ((pte.value & signs) != kWasWritable) must_invalidate_ = true;
  });
  if (!memory_.status().ok()) return memory_.status();
  return dirty;
}

absl::StatusOr<Gfn> L1Hypervisor::FrameOf(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 1); !s.ok()) return s;
  Leave();
  const NestedPte pte = tables_.Find(nested);
  if (!memory_.status().ok()) return memory_.status();
  if (!pte.present) {
    return absl::NotFoundError(
        Format("nothing is mapped at nested gpa 0x%x", nested.value()));
  }
  return pte.gfn() + (ToGfn(nested) - RoundDown(ToGfn(nested), pte.level));
}

// --- Helpers. ---

absl::Status L1Hypervisor::Exhausted() const {
  // A failed access of the host must not be reported as exhausted memory.
  if (!memory_.status().ok()) return memory_.status();
  return absl::ResourceExhaustedError(
      "L1's memory is used up; give it more, or unmap some of L2's");
}

absl::Status L1Hypervisor::CheckRange(Gpa nested, uint64_t bytes) const {
  const uint64_t end = tables_.end().value();
  if (nested.value() < end && bytes <= end - nested.value() &&
      (bytes < kPageSize ||
       (IsPageAligned(nested.value()) && IsPageAligned(bytes)))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      Format("nested gpa 0x%x, %d bytes: L2 has whole pages below 0x%x",
             nested.value(), bytes, end));
}

uint64_t L1Hypervisor::BitsOf(Rights rights) const {
  const bool npt = options_.tables == GuestTables::kNpt;
  switch (rights) {
    case Rights::kAll:
      return format_.full;
    case Rights::kReadExec:
      return format_.full & ~format_.write;
    case Rights::kRead:
      return npt ? (format_.full & ~format_.write) | guest_entry::kNx
                 : guest_entry::kEptRead;
    case Rights::kExec:
      return guest_entry::kEptExec;
  }
  return 0;
}

bool L1Hypervisor::HasDirtyBits() const {
  return options_.tables == GuestTables::kNpt || options_.ad_bits;
}

}  // namespace mmu
