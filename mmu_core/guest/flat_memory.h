// The memory of the reference processors in tests: one flat array of pages,
// with a record of the accesses to each page.

#ifndef MMU_CORE_GUEST_FLAT_MEMORY_H_
#define MMU_CORE_GUEST_FLAT_MEMORY_H_

#include <array>
#include <cstdint>
#include <set>
#include <unordered_map>

#include "mmu_core/base/address.h"

namespace mmu::testing {

// Initially zero. Thread-compatible.
class FlatMemory {
 public:
  // The source of an access: software in the guest, or the processor's page
  // walk, which reads page-table entries and sets bits in them.
  enum class By : uint8_t { kSoftware, kPageWalk };

  explicit FlatMemory(uint64_t bytes) : bytes_(bytes) {}

  // `size_bytes`: 4 or 8; `gpa` aligned to it.
  uint64_t Load(Gpa gpa, int size_bytes, By by);
  void Store(Gpa gpa, int size_bytes, uint64_t value, By by);
  // Reads a word without recording an access.
  uint64_t WordAt(Gpa gpa) const;

  // The pages that software wrote to; the pages that it accessed in any way.
  std::set<Gfn> written() const;
  std::set<Gfn> accessed() const;
  void ForgetAccesses();
  // The pages that page walks ever read.
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
  std::unordered_map<uint64_t, Page> pages_;  // by gfn; only accessed pages
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_FLAT_MEMORY_H_
