// The arguments and results of a walk of a guest's tables.

#ifndef MMU_CORE_GUEST_PAGING_GUEST_WALK_H_
#define MMU_CORE_GUEST_PAGING_GUEST_WALK_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/pae_roots.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

// The target of a walk of L1's tables.
enum class NestedTarget : uint8_t {
  kPage,        // the page that L2 accesses
  kGuestTable,  // a table of L2, on the way to the page
};

// A value.
struct GuestPageAccess {
  AccessKind kind = AccessKind::kRead;
  // For EPT it only qualifies fetches; for NPT every access is a user access.
  Privilege privilege = Privilege::kSupervisor;
  bool rflags_ac = false;                     // suspends SMAP
  uint32_t pkru = 0;                          // with CR4.PKE
  NestedTarget target = NestedTarget::kPage;  // EPT and NPT
};

// The start of a guest's tables. A value.
struct GuestRoot {
  Gfn table = {};   // of CR3, EPTP or nCR3; not used by PAE
  Pdptes pdptes{};  // used by PAE only (ROLE-21)
  // Of CR3, 0..4095: the tag of the guest's translations (SDM vol. 3, 4.10.1).
  // 0 without PCIDs, and for L1's tables.
  uint16_t pcid = 0;

  friend bool operator==(const GuestRoot&, const GuestRoot&) = default;
};

// Bits of a page fault's error code (SDM vol. 3, 4.7). A nested page fault's
// EXITINFO1 has the same bits and two more (APM vol. 2, 15.25.6).
inline constexpr uint64_t kPferrPresent = uint64_t{1} << 0;
inline constexpr uint64_t kPferrWrite = uint64_t{1} << 1;
inline constexpr uint64_t kPferrUser = uint64_t{1} << 2;
inline constexpr uint64_t kPferrReserved = uint64_t{1} << 3;
inline constexpr uint64_t kPferrFetch = uint64_t{1} << 4;
inline constexpr uint64_t kPferrKey = uint64_t{1} << 5;
inline constexpr uint64_t kPferrGuestFinal = uint64_t{1} << 32;
inline constexpr uint64_t kPferrGuestTable = uint64_t{1} << 33;

// Bits of an EPT violation's exit qualification (SDM vol. 3, table 28-7). Bits
// 3 to 6 are the rights that the entries grant: read, write, execute, user
// execute. Bits 7 and 8, about L2's linear address, are left to code that knows
// that address.
inline constexpr uint64_t kEptViolationRead = uint64_t{1} << 0;
inline constexpr uint64_t kEptViolationWrite = uint64_t{1} << 1;
inline constexpr uint64_t kEptViolationFetch = uint64_t{1} << 2;
inline constexpr uint64_t kEptViolationReadable = uint64_t{1} << 3;
inline constexpr uint64_t kEptViolationWritable = uint64_t{1} << 4;
inline constexpr uint64_t kEptViolationExecutable = uint64_t{1} << 5;
inline constexpr uint64_t kEptViolationUserExecutable = uint64_t{1} << 6;

// A value: the fault that the guest, or L1, receives.
struct GuestFault {
  enum class Kind : uint8_t {
    kPageFault,            // #PF; `code` is its error code
    kNestedPageFault,      // #VMEXIT(NPF); `code` is EXITINFO1
    kEptViolation,         // VM exit; `code` is its exit qualification
    kEptMisconfiguration,  // VM exit; no code
  } kind = Kind::kPageFault;
  uint64_t code = 0;

  friend bool operator==(const GuestFault&, const GuestFault&) = default;
};

// A value: one entry that a walk used.
struct GuestWalkStep {
  Gfn table;  // the table that has the entry
  Gpa entry_gpa;
  uint64_t entry = 0;  // includes bits set by the walk
  // The rights that the entries above grant: the access in the role of the
  // shadow page for `table` (ROLE-11).
  AccessRights access;
};

// A value.
struct GuestWalkResult {
  enum class Kind : uint8_t {
    kTranslated,
    kFault,  // `fault` is set; also `top_level`, `level`, the steps
    // The dirty ring had no room to record that the walk sets a bit in a table:
    // nothing is set. Walk again when there is room.
    kRingFull,
    // The host has no page where a table is, at the `entry_gpa` of the step of
    // `level`: to be walked again when there is one.
    kFrameMissing,
  } kind = Kind::kFault;
  GuestFault fault;

  // The frame of the address itself, even inside a larger page.
  Gfn gfn;
  // The rights that all entries together grant. Without W if the leaf's D is
  // clear and the access was no write: the first write must fault so that D is
  // set (SHD-48).
  AccessRights access;

  // Steps exist for the levels from top_level down to `level`, the level of the
  // leaf or of the last entry read before a fault. Both are 0 if no entry was
  // read: paging is off, or a PDPTE was not present.
  int top_level = 0;
  int level = 0;
  const GuestWalkStep& step(int at) const {
    return steps[static_cast<size_t>(at - 1)];
  }
  std::array<GuestWalkStep, 5> steps;  // by level - 1

  // Some Accessed or Dirty bits could not be set: a table is in a read-only
  // memslot (SHD-47).
  bool ad_update_skipped = false;
  // The host allows only reads of the leaf's table, so the walk could not set
  // the Dirty bit. The write must not happen: the table's owner would not
  // notice it. A lender may be asked for the right (memory/frame_lender.h);
  // then walk again.
  bool dirty_update_forbidden = false;

  // Whether the walk reached a leaf; the size of the leaf's page (REQUIRES:
  // level != 0).
  bool translated() const { return kind == Kind::kTranslated; }
  Level leaf_level() const { return static_cast<Level>(level); }
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_GUEST_WALK_H_
