// What makes two page-table pages interchangeable: the same gfn under the same
// role can be the same page, any difference forces another (ROLE-01).
//
// These are the fields by which pages of direct second-stage tables differ.
// The bit positions are the project's own; only equality of the word matters.
//
//   bits   field     meaning
//   3:0    level     of the page's entries; 1 maps 4 KiB
//   4      direct    no guest table behind it; always 1 for the TDP MMU
//   31:24  as_id     address space, kept in the top byte (TRM-07)

#ifndef MMU_CORE_PAGING_PAGE_ROLE_H_
#define MMU_CORE_PAGING_PAGE_ROLE_H_

#include <cstdint>

#include "mmu_core/base/level.h"

namespace mmu {

// A value.
class PageRole {
 public:
  constexpr PageRole() = default;

  static constexpr PageRole Direct(Level level, int as_id) {
    return PageRole(static_cast<uint32_t>(ToInt(level)) | kDirect |
                    (static_cast<uint32_t>(as_id) << kAsIdShift));
  }

  constexpr uint32_t word() const { return word_; }
  constexpr Level level() const {
    return static_cast<Level>(word_ & kLevelMask);
  }
  constexpr bool IsDirect() const { return (word_ & kDirect) != 0; }
  constexpr int as_id() const { return static_cast<int>(word_ >> kAsIdShift); }

  // The role of a table below this one (TDP-46, ROLE-11).
  constexpr PageRole Child() const {
    return PageRole((word_ & ~kLevelMask) |
                    static_cast<uint32_t>(ToInt(ChildOf(level()))));
  }

  friend constexpr bool operator==(PageRole, PageRole) = default;

 private:
  static constexpr uint32_t kLevelMask = 0xf;
  static constexpr uint32_t kDirect = 1u << 4;
  static constexpr int kAsIdShift = 24;

  constexpr explicit PageRole(uint32_t word) : word_(word) {}

  uint32_t word_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_PAGE_ROLE_H_
