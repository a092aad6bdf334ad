#include "mmu_core/paging/spte_format.h"

#include <cstdint>
#include <string_view>

#include "mmu_core/base/check.h"

namespace mmu {
namespace {

constexpr uint64_t Bit(int n) { return uint64_t{1} << n; }

// Combines masks and records whether any two of them overlap.
struct Disjoint {
  uint64_t all = 0;
  bool ok = true;
  constexpr Disjoint Add(uint64_t mask) const {
    return {all | mask, ok && (all & mask) == 0};
  }
};

}  // namespace

struct SpteFormat::Layout {
  std::string_view name;
  uint64_t present;
  uint64_t user;
  uint64_t execute;
  uint64_t user_execute;
  bool execute_is_nx;
  uint64_t memory_type_field;
  uint64_t memory_type_ram;
  uint64_t accessed;
  uint64_t dirty;
  uint64_t host_writable;
  uint64_t mmu_writable;
  uint64_t ad_type;
  uint64_t write_protect_only;
  uint64_t saved;  // R, X and XU of an access-tracked leaf
  uint64_t initial_in_present;

  constexpr Disjoint Fields() const {
    return Disjoint{}
        .Add(present)
        .Add(spte_bits::kWrite)
        .Add(user)
        .Add(execute)
        .Add(memory_type_field)
        .Add(accessed)
        .Add(dirty)
        .Add(spte_bits::kPageSize)
        .Add(spte_bits::kMmuPresent)
        .Add(spte_bits::kAddress)
        .Add(host_writable)
        .Add(mmu_writable)
        .Add(ad_type)
        .Add(write_protect_only)
        .Add(saved)
        .Add(initial_in_present);
  }
};

namespace {

// EPT memory type 6 is write-back; bit 6 makes the hardware ignore the guest's
// PAT (SPTE-19), so bits 6:3 read 1110b.
constexpr uint64_t kEptTypeField = Bit(3) | Bit(4) | Bit(5) | Bit(6);
constexpr uint64_t kEptWriteBackIgnorePat = (uint64_t{6} << 3) | Bit(6);

// The permissions of an EPT leaf that access tracking saves, and their place.
constexpr uint64_t kEptRead = Bit(0);
constexpr uint64_t kEptExecute = Bit(2);
constexpr uint64_t kEptUserExecute = Bit(10);
constexpr int kSavedShift = 52;  // R 0 -> 52, X 2 -> 54, XU 10 -> 62
constexpr uint64_t kEptTracked = kEptRead | kEptExecute | kEptUserExecute;
constexpr uint64_t kEptSaved = kEptTracked << kSavedShift;
static_assert(kEptSaved == (Bit(52) | Bit(54) | Bit(62)));

}  // namespace

constexpr SpteFormat::SpteFormat(const Layout& layout)
    : name_(layout.name),
      present_(layout.present),
      user_(layout.user),
      execute_(layout.execute),
      user_execute_(layout.user_execute),
      execute_is_nx_(layout.execute_is_nx),
      memory_type_(layout.memory_type_ram),
      accessed_(layout.accessed),
      dirty_(layout.dirty),
      host_writable_(layout.host_writable),
      mmu_writable_(layout.mmu_writable),
      ad_type_(layout.ad_type),
      write_protect_only_(layout.write_protect_only),
      initial_in_present_(layout.initial_in_present),
      reserved_(~layout.Fields().all) {}

const SpteFormat& SpteFormat::Ept() {
  static constexpr Layout kLayout = {
      .name = "ept",
      .present = Bit(0),
      .user = 0,
      .execute = Bit(2) | Bit(10),
      .user_execute = Bit(10),
      .execute_is_nx = false,
      .memory_type_field = kEptTypeField,
      .memory_type_ram = kEptWriteBackIgnorePat,
      .accessed = Bit(8),
      .dirty = Bit(9),
      .host_writable = Bit(53),
      .mmu_writable = Bit(55),
      .ad_type = 0,
      .write_protect_only = Bit(61),
      .saved = 0,
      .initial_in_present = Bit(63),  // suppress #VE
  };
  static_assert(kLayout.Fields().ok, "EPT fields overlap");
  static constexpr SpteFormat kFormat(kLayout);
  return kFormat;
}

const SpteFormat& SpteFormat::EptWithoutAd() {
  static constexpr Layout kLayout = {
      .name = "ept_without_ad",
      .present = kEptRead,
      .user = 0,
      .execute = kEptExecute | kEptUserExecute,
      .user_execute = kEptUserExecute,
      .execute_is_nx = false,
      .memory_type_field = kEptTypeField,
      .memory_type_ram = kEptWriteBackIgnorePat,
      .accessed = Bit(8),  // a software bit
      .dirty = 0,
      .host_writable = Bit(53),
      .mmu_writable = Bit(55),
      .ad_type = Bit(60),
      .write_protect_only = 0,
      .saved = kEptSaved,
      .initial_in_present = Bit(63),
  };
  static_assert(kLayout.Fields().ok, "EPT fields overlap");
  static constexpr SpteFormat kFormat(kLayout);
  return kFormat;
}

const SpteFormat& SpteFormat::Npt() {
  static constexpr Layout kLayout = {
      .name = "npt",
      .present = Bit(0),
      .user = Bit(2),
      .execute = Bit(63),
      .user_execute = 0,
      .execute_is_nx = true,
      .memory_type_field = 0,
      .memory_type_ram = 0,
      .accessed = Bit(5),
      .dirty = Bit(6),
      .host_writable = Bit(9),
      .mmu_writable = Bit(10),
      .ad_type = 0,
      .write_protect_only = 0,
      .saved = 0,
      .initial_in_present = 0,
  };
  static_assert(kLayout.Fields().ok, "NPT fields overlap");
  // Bits 62:52 are reserved in the PAE flavour of NPT: none is used (SPTE-05).
  static_assert((kLayout.Fields().all & 0x7ff0'0000'0000'0000) == 0);
  static constexpr SpteFormat kFormat(kLayout);
  return kFormat;
}

// All permission bits except W, since W does not depend on the rights alone.
uint64_t SpteFormat::BitsOf(AccessRights rights, Executable executable) const {
  const bool execute = rights.Has(kMayExec) && executable == Executable::kYes;
  const bool user = rights.Has(kMayUser);
  if (execute_is_nx_) {
    return present_ | (user ? user_ : 0) | (execute ? 0 : execute_);
  }
  return (rights.Has(kMayRead) ? present_ : 0) |
         (execute ? execute_ & ~user_execute_ : 0) |
         (user && executable == Executable::kYes ? user_execute_ : 0);
}

AccessRights SpteFormat::RightsOf(Spte spte) const {
  const auto has = [&](uint64_t mask) { return (spte.bits() & mask) != 0; };
  AccessRights rights;
  if (has(present_)) rights = rights | kMayRead;
  if (spte.IsWritable()) rights = rights | kMayWrite;
  if (has(execute_is_nx_ ? user_ : user_execute_)) rights = rights | kMayUser;
  if (has(execute_ & ~user_execute_) != execute_is_nx_) {
    rights = rights | kMayExec;
  }
  return rights;
}

Spte SpteFormat::MakeLeaf(const LeafSettings& settings) const {
  MMU_DCHECK(settings.level <= kMaxLeafLevel);
  MMU_DCHECK((settings.pfn.value() & (PagesPer(settings.level) - 1)) == 0);
  uint64_t bits = spte_bits::kMmuPresent | memory_type_ | ad_type_ |
                  initial_in_present_ | ToHpa(settings.pfn).value() |
                  BitsOf(settings.access, settings.executable);
  if (settings.level > Level::k4K) bits |= spte_bits::kPageSize;
  if (settings.prefetched == Prefetched::kNo) bits |= accessed_;
  if (settings.host_writable == HostWritable::kYes) {
    bits |= host_writable_;
    if (settings.write) bits |= mmu_writable_ | spte_bits::kWrite | dirty_;
  }
  if (settings.dirty_tracking == DirtyTracking::kWriteProtect) {
    bits |= write_protect_only_;
  }
  // A prefetched leaf was not accessed yet. Without A/D bits only access
  // tracking notices the first access (SPTE-11).
  if (settings.prefetched == Prefetched::kYes && !has_ad()) {
    return AccessTracked(Spte(bits));
  }
  return Spte(bits);
}

Spte SpteFormat::MakeTable(uint64_t table_address) const {
  MMU_DCHECK((table_address & ~spte_bits::kAddress) == 0);
  const uint64_t execute = execute_is_nx_ ? 0 : execute_;
  return Spte(spte_bits::kMmuPresent | present_ | user_ | execute |
              spte_bits::kWrite | (has_ad() ? accessed_ : 0) | ad_type_ |
              initial_in_present_ | table_address);
}

Spte SpteFormat::AccessTracked(Spte leaf) const {
  if (IsAccessTracked(leaf)) return Spte(leaf.bits() & ~accessed_);
  // Saving twice would overwrite the permissions saved first (SPTE-32).
  MMU_CHECK((leaf.bits() & kEptSaved) == 0);
  const uint64_t saved = (leaf.bits() & kEptTracked) << kSavedShift;
  return Spte((leaf.bits() & ~(kEptTracked | spte_bits::kWrite | accessed_)) |
              saved);
}

Spte SpteFormat::WithAccessRestored(Spte leaf) const {
  MMU_DCHECK(IsAccessTracked(leaf));
  const uint64_t saved = (leaf.bits() & kEptSaved) >> kSavedShift;
  return Spte((leaf.bits() & ~kEptSaved) | saved | accessed_);
}

Spte SpteFormat::WithExecute(Spte leaf, AccessRights access) const {
  if (execute_is_nx_) {
    return access.Has(kMayExec) ? Spte(leaf.bits() & ~execute_) : leaf;
  }
  const uint64_t execute = BitsOf(access.Without(kMayRead), Executable::kYes);
  return Spte(leaf.bits() |
              (IsAccessTracked(leaf) ? execute << kSavedShift : execute));
}

Spte SpteFormat::WithoutExecute(Spte leaf) const {
  if (execute_is_nx_) return Spte(leaf.bits() | execute_);
  return Spte(leaf.bits() &
              ~(IsAccessTracked(leaf) ? execute_ << kSavedShift : execute_));
}

Spte SpteFormat::MakeSplitChild(Spte huge, Level huge_level, int index) const {
  const Level child_level = ChildOf(huge_level);
  uint64_t bits =
      huge.bits() + static_cast<uint64_t>(index) * BytesPer(child_level);
  if (child_level == Level::k4K) bits &= ~spte_bits::kPageSize;
  return Spte(bits);
}

void SpteFormat::FillSplitChildren(Spte huge, Level huge_level,
                                   uint64_t* entries) const {
  uint64_t bits = MakeSplitChild(huge, huge_level, 0).bits();
  const uint64_t step = BytesPer(ChildOf(huge_level));
  for (int i = 0; i < kEntriesPerTable; ++i) entries[i] = bits + i * step;
}

Spte SpteFormat::MakeCollapsed(Spte child, Level level) const {
  const uint64_t offset_mask = BytesPer(level) - 1;
  return Spte((child.bits() & ~(spte_bits::kAddress & offset_mask)) |
              spte_bits::kPageSize);
}

bool SpteFormat::Allows(Spte spte, AccessKind kind) const {
  if ((spte.bits() & present_) == 0) {
    // EPT can grant execute alone (SPTE-18).
    return kind == AccessKind::kExec && !execute_is_nx_ && IsExecutable(spte);
  }
  switch (kind) {
    case AccessKind::kRead:
      return true;
    case AccessKind::kWrite:
      return spte.IsWritable();
    case AccessKind::kExec:
      return IsExecutable(spte);
  }
  return false;
}

WriteTriple SpteFormat::TripleOf(Spte spte) const {
  return {IsHostWritable(spte), IsMmuWritable(spte), spte.IsWritable()};
}

std::string_view SpteFormat::WhyIllegal(Spte spte, Level level) const {
  if ((spte.bits() & reserved_) != 0) return "a reserved bit is set";
  if ((spte.bits() & ad_type_) != ad_type_) return "another A/D type";
  const bool tracked = spte.IsLeaf(level) && IsAccessTracked(spte);
  if (tracked && (spte.bits() & kEptSaved) == 0) {
    return "access-tracked without saved permissions";
  }
  if (tracked && spte.IsWritable()) return "access-tracked with W";
  if (!tracked && !has_ad() && (spte.bits() & kEptSaved) != 0) {
    return "saved permissions in an entry that is not access-tracked";
  }
  if (!tracked && (spte.bits() & present_) == 0 &&
      (execute_is_nx_ || !spte.IsLeaf(level) || !IsExecutable(spte) ||
       spte.IsWritable())) {
    return "present bit is clear";
  }
  if (!spte.IsLeaf(level)) {
    return (spte.bits() & write_protect_only_) != 0 ? "a table of A/D type 2"
                                                    : "";
  }
  if (level > kMaxLeafLevel) return "a leaf above 1 GiB";
  if (level == Level::k4K && (spte.bits() & spte_bits::kPageSize) != 0) {
    return "page-size bit in a 4 KiB leaf";
  }
  if ((spte.address() & (BytesPer(level) - 1)) != 0) {
    return "address not aligned to the page size";
  }
  const WriteTriple triple = TripleOf(spte);
  if (triple.writable && !triple.mmu_writable) return "W without MMU-writable";
  if (triple.mmu_writable && !triple.host_writable) {
    return "MMU-writable without host-writable";
  }
  return "";
}

}  // namespace mmu
