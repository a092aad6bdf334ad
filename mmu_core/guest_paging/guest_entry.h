// Bits of the entries of guests' page tables.

#ifndef MMU_CORE_GUEST_PAGING_GUEST_ENTRY_H_
#define MMU_CORE_GUEST_PAGING_GUEST_ENTRY_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

namespace guest_entry {

// A mask of the bits [low, high]; 0 if low > high.
constexpr uint64_t Bits(int low, int high) {
  if (low > high) return 0;
  return (~uint64_t{0} >> (63 - high)) & (~uint64_t{0} << low);
}
constexpr uint64_t Bit(int n) { return uint64_t{1} << n; }

inline constexpr uint64_t kAddress = Bits(12, 51);

// Legacy entries (SDM vol. 3, tables 4-4 to 4-20).
inline constexpr uint64_t kPresent = Bit(0);
inline constexpr uint64_t kWritable = Bit(1);
inline constexpr uint64_t kUser = Bit(2);
inline constexpr uint64_t kAccessed = Bit(5);
inline constexpr uint64_t kDirty = Bit(6);
inline constexpr uint64_t kPageSize = Bit(7);
inline constexpr uint64_t kGlobal = Bit(8);
inline constexpr int kProtectionKeyShift = 59;
inline constexpr uint64_t kNx = Bit(63);

// EPT entries (SDM vol. 3, tables 29-1 to 29-7).
inline constexpr uint64_t kEptRead = Bit(0);
inline constexpr uint64_t kEptWrite = Bit(1);
inline constexpr uint64_t kEptExec = Bit(2);
inline constexpr int kEptMemoryTypeShift = 3;
inline constexpr uint64_t kEptAccessed = Bit(8);
inline constexpr uint64_t kEptDirty = Bit(9);
inline constexpr uint64_t kEptUserExec = Bit(10);

// The address bits, from `low` on, of a leaf at `level` in eight-byte tables
// that lie inside the page and must be 0.
constexpr uint64_t OffsetBits(int level, int low) {
  return Bits(low, 12 + 9 * (level - 1) - 1);
}

// The address in an eight-byte entry, given the entry's page size.
constexpr Gpa AddressIn(uint64_t e, bool leaf, int level) {
  return Gpa(e & kAddress & ~(leaf ? OffsetBits(level, 12) : uint64_t{0}));
}

constexpr AccessRights LegacyRights(uint64_t e) {
  AccessRights rights = kMayRead;
  if ((e & kWritable) != 0) rights = rights | kMayWrite;
  if ((e & kUser) != 0) rights = rights | kMayUser;
  if ((e & kNx) == 0) rights = rights | kMayExec;
  return rights;
}

}  // namespace guest_entry

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_GUEST_ENTRY_H_
