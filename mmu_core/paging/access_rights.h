// The rights that a mapping grants: those of one entry, or of all entries on
// the path to a page combined.
//
//   bit  letter  legacy and NPT tables      EPT
//   0    r       present                    read
//   1    w       write                      write
//   2    u       user-mode accesses, too    execute in user mode
//   3    x       execute (NX clear)         execute; with mode-based execute
//                                           control, in supervisor mode
//
// A path grants a right only if each of its entries grants the right, so rights
// combine by `&` (SHD-46). NX denies a right; it is inverted to x before it
// gets here.

#ifndef MMU_CORE_PAGING_ACCESS_RIGHTS_H_
#define MMU_CORE_PAGING_ACCESS_RIGHTS_H_

#include <cstdint>
#include <ostream>
#include <string>

namespace mmu {

// A value.
class AccessRights {
 public:
  static constexpr int kBits = 4;

  constexpr AccessRights() = default;  // no rights
  // REQUIRES: bits < 16.
  constexpr explicit AccessRights(uint32_t bits)
      : bits_(static_cast<uint8_t>(bits)) {}

  constexpr uint32_t bits() const { return bits_; }
  // True if every right of `other` is granted.
  constexpr bool Has(AccessRights other) const {
    return (bits_ & other.bits_) == other.bits_;
  }

  constexpr AccessRights operator&(AccessRights other) const {
    return AccessRights(uint32_t{bits_} & other.bits_);
  }
  constexpr AccessRights operator|(AccessRights other) const {
    return AccessRights(uint32_t{bits_} | other.bits_);
  }
  constexpr AccessRights Without(AccessRights other) const {
    return AccessRights(bits_ & ~uint32_t{other.bits_});
  }

  friend constexpr bool operator==(AccessRights, AccessRights) = default;

 private:
  uint8_t bits_ = 0;
};

inline constexpr AccessRights kMayRead{1};
inline constexpr AccessRights kMayWrite{2};
inline constexpr AccessRights kMayUser{4};
inline constexpr AccessRights kMayExec{8};
inline constexpr AccessRights kAllRights{15};

// "rwux"; a missing right is a '-'.
inline std::string ToString(AccessRights rights) {
  std::string text = "----";
  if (rights.Has(kMayRead)) text[0] = 'r';
  if (rights.Has(kMayWrite)) text[1] = 'w';
  if (rights.Has(kMayUser)) text[2] = 'u';
  if (rights.Has(kMayExec)) text[3] = 'x';
  return text;
}
inline std::ostream& operator<<(std::ostream& os, AccessRights rights) {
  return os << ToString(rights);
}

}  // namespace mmu

#endif  // MMU_CORE_PAGING_ACCESS_RIGHTS_H_
