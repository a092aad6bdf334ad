// Typed addresses and frame numbers.
//
// Every kind of address the MMU deals in is its own class, so that a guest
// frame number can never be passed where a host frame number is meant. There
// is no arithmetic across kinds; every crossing from one kind to another is a
// named function, so that `grep ToGfn` finds each of them.
//
// The kinds (mmu-behaviour section 1):
//   Gva      guest-virtual address: translated by the guest's own page tables
//   Gpa/Gfn  guest-physical address / guest frame number (gpa >> 12)
//   PageNumber  number of a 4 KiB page in the address space that a vCPU's
//            tables translate: guest-physical on a second stage,
//            guest-virtual on shadow pages
//   Hva      virtual address in this process that backs a memslot
//   Hpa/Pfn  host-physical address / host frame number. This process does not
//            know real physical addresses; `HostMemory` gives every backing a
//            range of frame numbers of its own (memory/host_memory.h).
//
// This file holds no behaviour beyond conversions. Next: base/level.h.

#ifndef MMU_CORE_BASE_ADDRESS_H_
#define MMU_CORE_BASE_ADDRESS_H_

#include <compare>
#include <cstdint>
#include <ostream>
#include <utility>

namespace mmu {

inline constexpr int kPageShift = 12;
inline constexpr uint64_t kPageSize = uint64_t{1} << kPageShift;
inline constexpr uint64_t kPageMask = kPageSize - 1;

// A 64-bit number with a kind. `Tag` names the kind and nothing else.
// Thread-compatible; a value.
template <typename Tag>
class TypedU64 {
 public:
  constexpr TypedU64() = default;
  constexpr explicit TypedU64(uint64_t value) : value_(value) {}

  constexpr uint64_t value() const { return value_; }

  // Distance arithmetic stays within one kind; the unit is the kind's own
  // (bytes for addresses, frames for frame numbers).
  constexpr TypedU64 operator+(uint64_t n) const {
    return TypedU64(value_ + n);
  }
  constexpr TypedU64 operator-(uint64_t n) const {
    return TypedU64(value_ - n);
  }
  constexpr uint64_t operator-(TypedU64 other) const {
    return value_ - other.value_;
  }
  constexpr TypedU64& operator+=(uint64_t n) {
    value_ += n;
    return *this;
  }

  friend constexpr auto operator<=>(TypedU64, TypedU64) = default;

  template <typename H>
  friend H AbslHashValue(H h, TypedU64 v) {
    return H::combine(std::move(h), v.value_);
  }
  friend std::ostream& operator<<(std::ostream& os, TypedU64 v) {
    return os << "0x" << std::hex << v.value_ << std::dec;
  }

 private:
  uint64_t value_ = 0;
};

using Gva = TypedU64<struct GvaTag>;
using Gpa = TypedU64<struct GpaTag>;
using Gfn = TypedU64<struct GfnTag>;
using PageNumber = TypedU64<struct PageNumberTag>;
using Hva = TypedU64<struct HvaTag>;
using Hpa = TypedU64<struct HpaTag>;
using Pfn = TypedU64<struct PfnTag>;

constexpr Gfn ToGfn(Gpa gpa) { return Gfn(gpa.value() >> kPageShift); }
constexpr Gpa ToGpa(Gfn gfn) { return Gpa(gfn.value() << kPageShift); }
// A vCPU on a second stage translates gfns.
constexpr PageNumber ToPageNumber(Gfn gfn) { return PageNumber(gfn.value()); }
constexpr PageNumber PageNumberOf(uint64_t address) {
  return PageNumber(address >> kPageShift);
}
constexpr Hpa ToHpa(Pfn pfn) { return Hpa(pfn.value() << kPageShift); }

constexpr bool IsPageAligned(uint64_t bytes) {
  return (bytes & kPageMask) == 0;
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_ADDRESS_H_
