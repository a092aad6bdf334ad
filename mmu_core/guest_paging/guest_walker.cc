#include "mmu_core/guest_paging/guest_walker.h"

#include <cstdint>
#include <type_traits>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/ept_paging_mode.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_paging_mode.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/legacy_paging_modes.h"
#include "mmu_core/guest_paging/pae_roots.h"
#include "mmu_core/guest_paging/permission_table.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {
namespace {

template <GuestPagingMode Mode>
uint64_t EntryIndex(uint64_t address, int level) {
  return address >> (kPageShift + Mode::kIndexBits * (level - 1)) &
         ((uint64_t{1} << Mode::kIndexBits) - 1);
}

}  // namespace

GuestWalker::GuestWalker(GuestTables tables, CpuRole role,
                         const GuestCpuid& cpu)
    : tables_(tables),
      role_(role),
      options_{.max_phys_bits = cpu.max_phys_bits,
               .has_1g_pages = cpu.has_1g_pages,
               .nx = role.base().efer_nx(),
               .pse = role.cr4_pse(),
               .ad_bits = !role.base().ad_disabled(),
               .exec_only = role.exec_only(),
               .mode_based_exec =
                   tables == GuestTables::kEpt && role.base().cr4_smep()},
      permissions_(tables == GuestTables::kEpt
                       ? PermissionTable::ForEpt()
                       : PermissionTable::ForLegacy(role)) {
  MMU_CHECK(cpu.max_phys_bits >= 32 && cpu.max_phys_bits <= 52);
}

template <typename Fn>
auto GuestWalker::WithMode(Fn fn) const {
  if (tables_ == GuestTables::kEpt) return fn.template operator()<EptPaging>();
  switch (role_.guest_level()) {
    case 2:
      return fn.template operator()<TwoLevelPaging>();
    case 3:
      return fn.template operator()<PaePaging>();
    default:
      break;
  }
  if (tables_ == GuestTables::kNpt) return fn.template operator()<NptPaging>();
  return role_.guest_level() == 4 ? fn.template operator()<FourLevelPaging>()
                                  : fn.template operator()<FiveLevelPaging>();
}

GuestWalkResult GuestWalker::Walk(GuestWords& memory, const GuestRoot& root,
                                  uint64_t address,
                                  const GuestPageAccess& access) const {
  if (role_.guest_level() == 0) return WithoutPaging(address);
  return WithMode([&]<GuestPagingMode Mode>() {
    return WalkIn<Mode>(memory, root, address, access);
  });
}

GuestWalker::EntryInfo GuestWalker::Decode(uint64_t entry, int level) const {
  return WithMode([&]<GuestPagingMode Mode>() {
    EntryInfo info;
    info.present = Mode::IsPresent(entry, options_);
    if (!info.present) return info;
    info.reserved = Mode::HasReservedBits(entry, level, options_);
    if (info.reserved) return info;
    const uint64_t accessed = Mode::AccessedBit(options_);
    const uint64_t dirty = Mode::DirtyBit(options_);
    info.leaf = Mode::IsLeaf(entry, level, options_);
    info.accessed = (entry & accessed) == accessed;
    info.dirty = info.leaf && (entry & dirty) == dirty;
    info.rights = Mode::RightsOf(entry, options_);
    info.gfn = ToGfn(Mode::AddressOf(entry, level, options_));
    return info;
  });
}

GuestWalkResult GuestWalker::WithoutPaging(uint64_t address) const {
  GuestWalkResult result;
  result.kind = GuestWalkResult::Kind::kTranslated;
  result.gfn = ToGfn(Gpa(address));
  result.access = kAllRights;
  return result;
}

template <GuestPagingMode Mode>
GuestWalkResult GuestWalker::WalkIn(GuestWords& memory, const GuestRoot& root,
                                    uint64_t address,
                                    GuestPageAccess access) const {
  if (tables_ == GuestTables::kNpt) {
    access.privilege = Privilege::kUser;
  }
  // If L1's tables have Accessed and Dirty bits, a walk of L2's tables counts
  // as a write to them: the processor may set such bits there (SDM vol. 3,
  // 29.3.5; APM vol. 2, 15.25.5).
  if (tables_ != GuestTables::kLegacy &&
      access.target == NestedTarget::kGuestTable &&
      Mode::DirtyBit(options_) != 0) {
    access.kind = AccessKind::kWrite;
  }
  for (;;) {
    GuestWalkResult result;
    if (TryWalk<Mode>(memory, root, address, access, result)) return result;
  }
}

template <GuestPagingMode Mode>
bool GuestWalker::TryWalk(GuestWords& memory, const GuestRoot& root,
                          uint64_t address, const GuestPageAccess& access,
                          GuestWalkResult& result) const {
  constexpr bool kHasPdptes = std::is_same_v<Mode, PaePaging>;
  const auto fault = [&](uint64_t pferr, AccessRights rights) {
    result.fault = FaultOf(access, pferr, rights);
    return true;
  };
  int level = role_.guest_level();
  const int address_bits =
      kHasPdptes ? 32 : kPageShift + Mode::kIndexBits * level;
  if (tables_ != GuestTables::kLegacy && address >> address_bits != 0) {
    return fault(0, {});  // wider than L1's tables can translate
  }

  Gfn table = root.table;
  if constexpr (kHasPdptes) {
    const uint64_t pdpte = root.pdptes[address >> 30 & 3];
    if (!Mode::IsPresentPdpte(pdpte)) return fault(0, {});
    if (Mode::HasReservedPdpteBits(pdpte, options_.max_phys_bits)) {
      return fault(kPferrPresent | kPferrReserved, {});
    }
    table = ToGfn(Mode::AddressOfPdpte(pdpte));
    --level;
  }

  result.top_level = level;
  AccessRights rights = kAllRights;
  for (;; --level) {
    result.level = level;
    GuestWalkStep& step = result.steps[static_cast<size_t>(level - 1)];
    step.table = table;
    step.entry_gpa = ToGpa(table) + EntryIndex<Mode>(address, level) *
                                        static_cast<uint64_t>(Mode::kWordSize);
    step.access = rights;
    const GuestWordResult read =
        memory.Read(step.entry_gpa, Mode::kWordSize, &step.entry);
    if (read == GuestWordResult::kFrameMissing) {
      result.kind = GuestWalkResult::Kind::kFrameMissing;
      return true;
    }
    if (read != GuestWordResult::kDone) return fault(0, {});
    const uint64_t entry = step.entry;
    if (!Mode::IsPresent(entry, options_)) return fault(0, {});
    if (Mode::HasReservedBits(entry, level, options_)) {
      return fault(kPferrPresent | kPferrReserved, {});
    }
    rights = rights & Mode::RightsOf(entry, options_);
    const Gpa target = Mode::AddressOf(entry, level, options_);
    if (Mode::IsLeaf(entry, level, options_)) {
      const int shift = kPageShift + Mode::kIndexBits * (level - 1);
      const uint64_t offset = address & ((uint64_t{1} << shift) - 1);
      result.gfn = ToGfn(target + offset);
      break;
    }
    table = ToGfn(target);
  }

  const int key = static_cast<int>(result.step(level).entry >>
                                   guest_entry::kProtectionKeyShift) &
                  15;
  const bool denied_by_key = permissions_.DeniedByKey(access, rights, key);
  if (denied_by_key || permissions_.Denies(access, rights)) {
    return fault(kPferrPresent | (denied_by_key ? kPferrKey : 0), rights);
  }

  switch (SetAccessedAndDirty<Mode>(memory, access, result)) {
    case AdUpdate::kDone:
      break;
    case AdUpdate::kChanged:
      return false;
    case AdUpdate::kRingFull:
      result.kind = GuestWalkResult::Kind::kRingFull;
      return true;
  }
  const uint64_t dirty = Mode::DirtyBit(options_);
  if (access.kind != AccessKind::kWrite &&
      (result.step(level).entry & dirty) != dirty) {
    rights = rights.Without(kMayWrite);
  }
  result.access = rights;
  result.kind = GuestWalkResult::Kind::kTranslated;
  return true;
}

// The race with a guest that edits the entry (RACE-27):
//
//   1. here: reads the entry, present and not accessed
//   2. guest: writes another entry to the same place
//   3. here: the compare-exchange against 1 fails, and the walk starts over
//
// A plain write at 3 would restore the entry that the guest replaced.
//
// Bits that the walk has set by then stay set, and each is a page in the dirty
// log. A guest that keeps editing makes the walk start over any number of
// times; in a dirty ring each time adds an entry. So the ring's soft limit is
// checked before each exchange, and at the limit the walk ends.
template <GuestPagingMode Mode>
GuestWalker::AdUpdate GuestWalker::SetAccessedAndDirty(
    GuestWords& memory, const GuestPageAccess& access,
    GuestWalkResult& result) const {
  for (int level = result.top_level; level >= result.level; --level) {
    GuestWalkStep& step = result.steps[static_cast<size_t>(level - 1)];
    uint64_t wanted = step.entry | Mode::AccessedBit(options_);
    if (level == result.level && access.kind == AccessKind::kWrite) {
      wanted |= Mode::DirtyBit(options_);
    }
    if (wanted == step.entry) continue;
    switch (memory.CompareExchange(step.entry_gpa, Mode::kWordSize, step.entry,
                                   wanted)) {
      case GuestWordResult::kDone:
        step.entry = wanted;
        break;
      case GuestWordResult::kReadonly:
        result.ad_update_skipped = true;
        break;
      case GuestWordResult::kHostReadonly:
        result.ad_update_skipped = true;
        if (level == result.level && access.kind == AccessKind::kWrite) {
          result.dirty_update_forbidden = true;
        }
        break;
      case GuestWordResult::kRingFull:
        return AdUpdate::kRingFull;
      default:
        // Changed, or its memslot or frame is gone: another walk finds out.
        return AdUpdate::kChanged;
    }
  }
  return AdUpdate::kDone;
}

GuestFault GuestWalker::FaultOf(const GuestPageAccess& access, uint64_t pferr,
                                AccessRights rights) const {
  using Kind = GuestFault::Kind;
  const bool write = access.kind == AccessKind::kWrite;
  const bool fetch = access.kind == AccessKind::kExec;
  if (tables_ == GuestTables::kEpt) {
    if ((pferr & kPferrReserved) != 0) {
      return {.kind = Kind::kEptMisconfiguration};
    }
    uint64_t code = fetch   ? kEptViolationFetch
                    : write ? kEptViolationWrite
                            : kEptViolationRead;
    // Where the walk counts as a write, the processor also reads the table.
    if (write && access.target == NestedTarget::kGuestTable) {
      code |= kEptViolationRead;
    }
    if (rights.Has(kMayRead)) code |= kEptViolationReadable;
    if (rights.Has(kMayWrite)) code |= kEptViolationWritable;
    if (rights.Has(kMayExec)) code |= kEptViolationExecutable;
    if (options_.mode_based_exec && rights.Has(kMayUser)) {
      code |= kEptViolationUserExecutable;
    }
    return {.kind = Kind::kEptViolation, .code = code};
  }

  uint64_t code = pferr;
  if (write) code |= kPferrWrite;
  if (access.privilege == Privilege::kUser) code |= kPferrUser;
  if (fetch && role_.pferr_fetch()) code |= kPferrFetch;
  if (tables_ == GuestTables::kNpt) {
    code |= access.target == NestedTarget::kPage ? kPferrGuestFinal
                                                 : kPferrGuestTable;
    return {.kind = Kind::kNestedPageFault, .code = code};
  }
  return {.kind = Kind::kPageFault, .code = code};
}

}  // namespace mmu
