// A descriptor of an arm64 stage-2 table: 64 bits of VMSAv8-64 (DDI0487, D8.3).
//
//   bits    name        meaning
//   0       valid       the hardware uses the descriptor
//   1       type        above level 1: 1 a table, 0 a block; at level 1 always
//                       1: a page
//   5:2     MemAttr     memory attributes: 1111 is Normal, Write-Back
//   6       S2AP[0]     the guest may read
//   7       S2AP[1]     the guest may write
//   9:8     SH          shareability: 11 is Inner Shareable
//   10      AF          Access flag; clear: an access faults, or the hardware
//                       sets it (FEAT_HAFDBS)
//   47:12   address     of the mapped memory, or of the next table; aligned to
//                       the granule
//   51      DBM         with S2AP[1] clear: a write does not fault, the
//   hardware
//                       sets S2AP[1] (FEAT_HAFDBS; stage2_dirty.h)
//   52      Contiguous  a hint, never set
//   54:53   XN          1x: the guest may not execute
//   58:55   software    not used
//
// The hardware ignores all bits but `valid` of an invalid descriptor. Two
// invalid values have a meaning: 0, which was never used or was unmapped, and
// the locked one (ARM-05), which a walker stores while it changes what was
// there. Only that walker may replace it; any other that meets it gives up.
//
// Levels count from the leaf up (base/arm_geometry.h).

#ifndef MMU_CORE_STAGE2_S2_DESCRIPTOR_H_
#define MMU_CORE_STAGE2_S2_DESCRIPTOR_H_

#include <cstdint>
#include <ostream>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/table_geometry.h"

namespace mmu {

namespace s2_bits {
inline constexpr uint64_t kValid = uint64_t{1} << 0;
inline constexpr uint64_t kTable = uint64_t{1} << 1;  // or a page, at level 1
inline constexpr uint64_t kMemAttrNormal = uint64_t{15} << 2;
inline constexpr uint64_t kRead = uint64_t{1} << 6;   // S2AP[0]
inline constexpr uint64_t kWrite = uint64_t{1} << 7;  // S2AP[1]
inline constexpr uint64_t kInnerShareable = uint64_t{3} << 8;
inline constexpr uint64_t kAccessFlag = uint64_t{1} << 10;
inline constexpr uint64_t kAddress = 0x0000'ffff'ffff'f000;
inline constexpr uint64_t kDirtyBitModifier = uint64_t{1} << 51;
inline constexpr uint64_t kContiguous = uint64_t{1} << 52;
inline constexpr uint64_t kExecuteNever = uint64_t{2} << 53;
// In an invalid descriptor: a walker has locked it.
inline constexpr uint64_t kLocked = uint64_t{1} << 60;

// What a change of rights in place may change (ARM-07).
inline constexpr uint64_t kRights =
    kRead | kWrite | kDirtyBitModifier | kExecuteNever;
}  // namespace s2_bits

// Thread-compatible; a value.
class S2Descriptor {
 public:
  // The value of a never-used entry.
  constexpr S2Descriptor() = default;
  constexpr explicit S2Descriptor(uint64_t bits) : bits_(bits) {}

  static constexpr S2Descriptor Locked() {
    return S2Descriptor(s2_bits::kLocked);
  }

  // The value that the entries of an unlinked table get: to other walkers it
  // means the same.
  static constexpr S2Descriptor Frozen() { return Locked(); }

  constexpr uint64_t bits() const { return bits_; }
  constexpr bool Has(uint64_t bits) const { return (bits_ & bits) == bits; }
  // The same descriptor with the bits of `mask` set, or cleared.
  constexpr S2Descriptor With(uint64_t mask) const {
    return S2Descriptor(bits_ | mask);
  }
  constexpr S2Descriptor Without(uint64_t mask) const {
    return S2Descriptor(bits_ & ~mask);
  }

  // The MMU uses the entry, and so does the hardware.
  constexpr bool IsPresent() const { return Has(s2_bits::kValid); }
  constexpr bool IsFrozen() const { return bits_ == s2_bits::kLocked; }
  // At level 1 every valid descriptor that this MMU makes is a page.
  constexpr bool IsLeaf(Level level) const {
    return ToInt(level) == 1 || !Has(s2_bits::kTable);
  }
  constexpr bool IsPresentLeaf(Level level) const {
    return IsPresent() && IsLeaf(level);
  }
  constexpr bool IsPresentTable(Level level) const {
    return IsPresent() && !IsLeaf(level);
  }

  constexpr bool IsWritable() const { return Has(s2_bits::kWrite); }
  // The hardware notes the first write to the page here: DBM. With S2AP[1]
  // clear there was none yet ("writable-clean").
  constexpr bool NotesWrites() const { return Has(s2_bits::kDirtyBitModifier); }
  // The hardware has noted a write.
  constexpr bool HasNotedWrite() const { return NotesWrites() && IsWritable(); }
  constexpr bool IsExecutable() const { return !Has(s2_bits::kExecuteNever); }
  constexpr bool IsAccessed() const { return Has(s2_bits::kAccessFlag); }
  // The present leaf as the processor has it after an access of `kind`, if the
  // leaf then allows the access: AF is set, and a write is noted.
  constexpr S2Descriptor AfterAccess(AccessKind kind) const {
    S2Descriptor accessed = With(s2_bits::kAccessFlag);
    if (kind == AccessKind::kWrite && NotesWrites()) {
      accessed = accessed.With(s2_bits::kWrite);
    }
    return accessed;
  }
  // Whether the rights of a present leaf allow `kind`. AF is another matter.
  constexpr bool Allows(AccessKind kind) const {
    switch (kind) {
      case AccessKind::kRead:
        return Has(s2_bits::kRead);
      case AccessKind::kWrite:
        return IsWritable();
      case AccessKind::kExec:
        return Has(s2_bits::kRead) && IsExecutable();
    }
    return false;
  }

  constexpr uint64_t address() const { return bits_ & s2_bits::kAddress; }
  constexpr Pfn pfn() const { return Pfn(address() >> kPageShift); }

  friend constexpr bool operator==(S2Descriptor, S2Descriptor) = default;
  friend std::ostream& operator<<(std::ostream& os, S2Descriptor descriptor) {
    return os << "s2 descriptor 0x" << std::hex << descriptor.bits_ << std::dec;
  }

 private:
  uint64_t bits_ = 0;
};

static_assert(!S2Descriptor::Locked().IsPresent());

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_DESCRIPTOR_H_
