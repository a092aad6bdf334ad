// L1 changes the memory of an L2 guest.

#include <optional>
#include <vector>

#include "mmu_core/base/format.h"
#include "mmu_core/guest/hypervisor/l1_entry_bits.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest_paging/guest_entry.h"

namespace mmu {

// No invalidation: a processor may keep its cached translation of the large
// page, since the small pages translate to the same frames.
bool L1Hypervisor::Split(const NestedPte& pte) {
  if (!tables_->Split(pte, MayBeDirty(pte.value))) return false;
  ++stats_.splits;
  return true;
}

absl::StatusOr<NestedPte> L1Hypervisor::FindWithin(Gpa nested, Gpa end) {
  for (;;) {
    const NestedPte pte = tables_->Find(nested);
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
  if (absl::Status s = CheckRange(nested, bytes); !s.ok()) return s;
  return WithLock([&] {
    std::vector<Gfn> unmapped;
    const absl::Status status =
        ForEachWithin(nested, bytes, [&](const NestedPte& pte) {
          tables_->Store(pte, 0);
          for (uint64_t i = 0; i < PagesPer(pte.level); ++i) {
            unmapped.push_back(pte.gfn() + i);
          }
        });
    if (unmapped.empty()) return status;
    if (absl::Status s = Shootdown(); !s.ok()) return s;
    for (const Gfn gfn : unmapped) shared_.frames.Drop(gfn);
    return status;
  });
}

absl::Status L1Hypervisor::Protect(Gpa nested, uint64_t bytes, Rights rights) {
  if (rights == Rights::kExec && !options_.exec_only) {
    return absl::InvalidArgumentError(
        "pages that can be executed and not read need EPT with exec_only");
  }
  if (absl::Status s = CheckRange(nested, bytes); !s.ok()) return s;
  return WithLock([&] {
    bool lost_rights = false;
    absl::Status status =
        ForEachWithin(nested, bytes, [&](const NestedPte& pte) {
          uint64_t value =
              (pte.value & ~(format_.rights | kTracked)) | BitsOf(rights);
          if (!options_.HasDirtyBits() &&
              (pte.value & ~value & format_.write) != 0) {
            value |= kWasWritable;
          }
          if (value == pte.value) return;
          tables_->Store(pte, value | MayBeDirty(pte.value));
          // NX is inverted: it denies a right.
          const uint64_t nx = format_.rights & guest_entry::kNx;
          lost_rights |=
              ((pte.value ^ nx) & ~(value ^ nx) & format_.rights) != 0;
        });
    if (!lost_rights) return status;
    const absl::Status done = Shootdown();
    return status.ok() ? done : status;
  });
}

// First unmaps the page, so that no processor writes to the frame while it is
// copied.
absl::Status L1Hypervisor::Remap(Gpa nested) {
  if (absl::Status s = CheckRange(nested, kPageSize); !s.ok()) return s;
  return WithLock([&]() -> absl::Status {
    absl::StatusOr<NestedPte> pte = FindWithin(nested, nested + kPageSize);
    if (!pte.ok()) return pte.status();
    if (!pte->present) return absl::OkStatus();
    if (shared_.frames.references(pte->gfn()) > 1) {
      return absl::FailedPreconditionError(
          Format("the page at nested gpa 0x%x is aliased", nested.value()));
    }
    const std::optional<FrameAllocator::Frame> frame =
        shared_.frames.Allocate();
    if (!frame.has_value()) return Exhausted();
    tables_->Store(*pte, 0);
    if (absl::Status s = Shootdown(); !s.ok()) return s;
    memory_.CopyPage(pte->gfn(), frame->gfn);
    // No invalidation: nothing was mapped meanwhile.
    tables_->Store(*pte, (pte->value & ~guest_entry::kAddress) |
                             ToGpa(frame->gfn).value() |
                             MayBeDirty(pte->value));
    shared_.frames.Drop(pte->gfn());
    return memory_.status();
  });
}

absl::Status L1Hypervisor::Alias(Gpa from, Gpa to) {
  if (absl::Status s = CheckRange(from, kPageSize); !s.ok()) return s;
  if (absl::Status s = CheckRange(to, kPageSize); !s.ok()) return s;
  return WithLock([&]() -> absl::Status {
    absl::StatusOr<NestedPte> pte = FindWithin(from, from + kPageSize);
    if (!pte.ok()) return pte.status();
    if (!pte->present || tables_->Find(to).present) {
      return absl::FailedPreconditionError(
          Format("nested gpa 0x%x has to be mapped and 0x%x not", from.value(),
                 to.value()));
    }
    const uint64_t clean = ~(format_.accessed | format_.dirty);
    if (!tables_->Set(to, Level::k4K, pte->value & clean)) return Exhausted();
    shared_.frames.AddReference(pte->gfn());
    return memory_.status();
  });
}

std::optional<L1Hypervisor::Common> L1Hypervisor::CommonOf(
    const NestedPte& link) {
  // Tracked pages count as writable, like pages that are not mapped yet.
  std::optional<uint64_t> rights;
  Common common;
  bool tracked = false;
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const NestedPte pte = tables_->Child(link, i);
    uint64_t granted = pte.present ? pte.value & format_.rights : format_.full;
    if ((pte.value & kTracked) != 0) {
      granted |= format_.write;
      tracked = true;
    } else if (!options_.HasDirtyBits() && (pte.value & format_.write) != 0) {
      common.past |= kWasWritable;
    }
    if (rights.value_or(granted) != granted ||
        (pte.present && shared_.frames.references(pte.gfn()) > 1)) {
      return std::nullopt;
    }
    rights = granted;
    common.past |=
        pte.value & (format_.accessed | format_.dirty | kWasWritable);
  }
  common.rights = *rights;
  if (tracked) common.rights = (common.rights & ~format_.write) | kTracked;
  return common;
}

// First unlinks the table, so that no processor writes to the small pages while
// they are copied, or sets bits in the table.
absl::Status L1Hypervisor::Promote(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  return WithLock([&]() -> absl::Status {
    const NestedPte link = tables_->Find(nested, Level::k2M);
    if (link.level != Level::k2M || !link.present || link.leaf()) {
      return absl::FailedPreconditionError(Format(
          "there are no small pages around nested gpa 0x%x", nested.value()));
    }
    if (!CommonOf(link).has_value()) {
      return absl::FailedPreconditionError(Format(
          "the pages around nested gpa 0x%x are not alike", nested.value()));
    }
    const std::optional<Gfn> first =
        shared_.frames.AllocateRun(kEntriesPerTable);
    if (!first.has_value()) {
      return absl::FailedPreconditionError(
          "L1's memory has no aligned 2 MiB left");
    }
    tables_->Store(link, 0);
    if (absl::Status s = Shootdown(); !s.ok()) return s;
    const Common common = CommonOf(link).value_or(Common());
    for (int i = 0; i < kEntriesPerTable; ++i) {
      const NestedPte pte = tables_->Child(link, i);
      if (!pte.present) continue;
      memory_.CopyPage(pte.gfn(), *first + static_cast<uint64_t>(i));
      shared_.frames.Drop(pte.gfn());
    }
    // No invalidation: nothing was mapped meanwhile.
    tables_->Store(link, tables_->MakeLeaf(*first, Level::k2M, common.rights) |
                             common.past);
    shared_.frames.Drop(link.gfn());
    ++stats_.merges;
    return memory_.status();
  });
}

absl::Status L1Hypervisor::Demote(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  return WithLock([&]() -> absl::Status {
    const NestedPte pte = tables_->Find(nested);
    if (!pte.present || pte.level == Level::k4K) {
      return absl::FailedPreconditionError(
          Format("there is no large page at nested gpa 0x%x", nested.value()));
    }
    if (!Split(pte)) return Exhausted();
    return memory_.status();
  });
}

// A processor may keep the link in a paging-structure cache, so the table is
// not free before all have invalidated.
absl::Status L1Hypervisor::FreeTable(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  return WithLock([&]() -> absl::Status {
    const NestedPte link = tables_->Find(nested, Level::k2M);
    bool free = link.level == Level::k2M && link.present && !link.leaf();
    for (int i = 0; free && i < kEntriesPerTable; ++i) {
      free = !tables_->Child(link, i).present;
    }
    if (!free) {
      return absl::FailedPreconditionError(Format(
          "there is no empty table for nested gpa 0x%x", nested.value()));
    }
    tables_->Store(link, 0);
    if (absl::Status s = Shootdown(); !s.ok()) return s;
    shared_.frames.Drop(link.gfn());
    ++stats_.frees;
    return memory_.status();
  });
}

absl::StatusOr<std::vector<Gfn>> L1Hypervisor::TakeDirty() {
  std::vector<Gfn> dirty;
  const absl::Status status = WithLock([&] {
    bool taken = false;
    tables_->ForEachLeaf([&](Gpa nested, const NestedPte& pte) {
      const uint64_t signs =
          (options_.HasDirtyBits() ? format_.dirty : format_.write) |
          kWasWritable;
      if ((pte.value & signs) == 0) return;
      for (uint64_t i = 0; i < PagesPer(pte.level); ++i) {
        dirty.push_back(ToGfn(nested) + i);
      }
      uint64_t value = pte.value & ~signs;
      if (!options_.HasDirtyBits() && (pte.value & format_.write) != 0) {
        value |= kTracked;
      }
      // A Dirty bit that a processor sets here and that is lost concerns a
      // write of a page that is in this log.
      tables_->Store(pte, value);
      // Processors that know the page as dirty set no Dirty bit. Write
      // protection that is in place already needs no invalidation.
      taken |= options_.HasDirtyBits() || (pte.value & signs) != kWasWritable;
    });
    if (!memory_.status().ok() || !taken) return memory_.status();
    return Shootdown();
  });
  if (!status.ok()) return status;
  return dirty;
}

absl::StatusOr<Gfn> L1Hypervisor::FrameOf(Gpa nested) {
  if (absl::Status s = CheckRange(nested, 1); !s.ok()) return s;
  NestedPte pte;
  const absl::Status status = WithLock([&] {
    pte = tables_->Find(nested);
    return memory_.status();
  });
  if (!status.ok()) return status;
  if (!pte.present) {
    return absl::NotFoundError(
        Format("nothing is mapped at nested gpa 0x%x", nested.value()));
  }
  return pte.gfn() + (ToGfn(nested) - RoundDown(ToGfn(nested), pte.level));
}

uint64_t L1Hypervisor::MayBeDirty(uint64_t value) const {
  const bool others_run = shared_.shootdown.cpus() > 1;
  return others_run && options_.HasDirtyBits() &&
                 (value & format_.write) != 0 && (value & format_.dirty) == 0
             ? kWasWritable
             : 0;
}

}  // namespace mmu
