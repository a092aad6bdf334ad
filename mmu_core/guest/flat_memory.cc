#include "mmu_core/guest/flat_memory.h"

#include "mmu_core/base/check.h"

namespace mmu::testing {
namespace {

size_t IndexIn(Gpa gpa) { return (gpa.value() & kPageMask) / 8; }

}  // namespace

FlatMemory::Page& FlatMemory::PageOf(Gpa gpa) {
  MMU_CHECK(gpa.value() < bytes_);
  return pages_[ToGfn(gpa).value()];
}

uint64_t FlatMemory::Load(Gpa gpa, int size_bytes, By by) {
  Page& page = PageOf(gpa);
  (by == By::kPageWalk ? page.table : page.accessed) = true;
  const uint64_t word = page.words[IndexIn(gpa)];
  if (size_bytes == 8) return word;
  return gpa.value() % 8 == 4 ? word >> 32 : word & 0xffff'ffff;
}

void FlatMemory::Store(Gpa gpa, int size_bytes, uint64_t value, By by) {
  Page& page = PageOf(gpa);
  if (by == By::kSoftware) {
    page.accessed = true;
    page.written = true;
  } else {
    page.table = true;
  }
  uint64_t& word = page.words[IndexIn(gpa)];
  if (size_bytes == 8) {
    word = value;
  } else if (gpa.value() % 8 == 4) {
    word = (word & 0xffff'ffff) | value << 32;
  } else {
    word = (word & ~uint64_t{0xffff'ffff}) | (value & 0xffff'ffff);
  }
}

uint64_t FlatMemory::WordAt(Gpa gpa) const {
  const auto it = pages_.find(ToGfn(gpa).value());
  return it == pages_.end() ? 0 : it->second.words[IndexIn(gpa)];
}

std::set<Gfn> FlatMemory::written() const {
  std::set<Gfn> gfns;
  for (const auto& [gfn, page] : pages_) {
    if (page.written) gfns.insert(Gfn(gfn));
  }
  return gfns;
}

std::set<Gfn> FlatMemory::accessed() const {
  std::set<Gfn> gfns;
  for (const auto& [gfn, page] : pages_) {
    if (page.accessed) gfns.insert(Gfn(gfn));
  }
  return gfns;
}

void FlatMemory::ForgetAccesses() {
  for (auto& [gfn, page] : pages_) page.accessed = page.written = false;
}

std::set<Gfn> FlatMemory::tables() const {
  std::set<Gfn> gfns;
  for (const auto& [gfn, page] : pages_) {
    if (page.table) gfns.insert(Gfn(gfn));
  }
  return gfns;
}

}  // namespace mmu::testing
