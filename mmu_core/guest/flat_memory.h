// The memory of the processors that tests compare others with: one flat row of
// pages, and what was done to each.

#ifndef MMU_CORE_GUEST_FLAT_MEMORY_H_
#define MMU_CORE_GUEST_FLAT_MEMORY_H_

#include <array>
#include <cstdint>
#include <set>
#include <unordered_map>

#include "mmu_core/base/address.h"

namespace mmu::testing {

// Zeros at first. Thread-compatible.
class FlatMemory {
 public:
  // Who accesses: software in the guest, or the processor on its own, which
  // reads entries of page tables and sets bits in them.
  enum class By : uint8_t { kSoftware, kPageWalk };

  explicit FlatMemory(uint64_t bytes) : bytes_(bytes) {}

  // `size_bytes`: 4 or 8; `gpa` aligned to it.
  uint64_t Load(Gpa gpa, int size_bytes, By by);
  void Store(Gpa gpa, int size_bytes, uint64_t value, By by);
  // Looks, without a trace.
  uint64_t WordAt(Gpa gpa) const;

  // Pages that software wrote to, and that it accessed in any way.
  std::set<Gfn> written() const;
  std::set<Gfn> accessed() const;
  void ForgetAccesses();
  // Pages that page walks ever read.
  std::set<Gfn> tables() const;

 private:
  struct Page {
    std::array<uint64_t, kPageSize / 8> words{};
    bool accessed = false;
    bool written = false;
    bool table = false;
  };
  Page& PageOf(Gpa gpa);

  const uint64_t bytes_;
  std::unordered_map<uint64_t, Page> pages_;  // by gfn; those in use
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_FLAT_MEMORY_H_
