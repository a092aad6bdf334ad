// The bits of a guest's control registers that its paging depends on (SDM
// vol. 3, 2.5 and 4.1).

#ifndef MMU_CORE_GUEST_PAGING_CONTROL_REGISTERS_H_
#define MMU_CORE_GUEST_PAGING_CONTROL_REGISTERS_H_

#include <cstdint>

namespace mmu {

inline constexpr uint64_t kCr0Wp = uint64_t{1} << 16;
inline constexpr uint64_t kCr0Pg = uint64_t{1} << 31;

inline constexpr uint64_t kCr4Pse = uint64_t{1} << 4;
inline constexpr uint64_t kCr4Pae = uint64_t{1} << 5;
inline constexpr uint64_t kCr4La57 = uint64_t{1} << 12;
inline constexpr uint64_t kCr4Smep = uint64_t{1} << 20;
inline constexpr uint64_t kCr4Smap = uint64_t{1} << 21;
inline constexpr uint64_t kCr4Pke = uint64_t{1} << 22;

inline constexpr uint64_t kEferLma = uint64_t{1} << 10;
inline constexpr uint64_t kEferNx = uint64_t{1} << 11;

// A value. Other bits of the registers are ignored.
struct GuestPagingState {
  uint64_t cr0 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  bool guest_mode = false;  // the vCPU runs a nested guest (L2)
  int as_id = 0;            // 1 in system management mode (TRM-07)
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_CONTROL_REGISTERS_H_
