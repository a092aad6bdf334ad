#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"

namespace mmu::testing {
namespace {

AccessRights Needed(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead:
      return kMayRead;
    case AccessKind::kWrite:
      return kMayWrite;
    case AccessKind::kExec:
      return kMayExec;
  }
  return kAllRights;
}

}  // namespace

bool FakeL1Cpu::Access(Gpa gpa, int size_bytes, AccessKind kind,
                       uint64_t* word) {
  MMU_CHECK(!in_l2_);
  if (!Served()) return false;
  if (kind == AccessKind::kWrite) {
    memory_.Store(gpa, size_bytes, *word);
  } else {
    *word = memory_.Load(gpa, size_bytes);
  }
  return true;
}

void FakeL1Cpu::InveptSingleContext(Gpa root) {
  MMU_CHECK(!in_l2_);
  tlb_.erase(tlb_.lower_bound({root, Gfn(0)}),
             tlb_.lower_bound({root + 1, Gfn(0)}));
}

void FakeL1Cpu::EnterL2(const NestedPaging& paging) {
  MMU_CHECK(!in_l2_);
  in_l2_ = true;
  paging_ = paging;
  if (std::exchange(flush_asid_, false)) tlb_.clear();
}

void FakeL1Cpu::LeaveL2() {
  MMU_CHECK(in_l2_);
  in_l2_ = false;
}

L1Cpu::Outcome FakeL1Cpu::L2Access(Gpa nested_gpa, int size_bytes,
                                   AccessKind kind, uint64_t* word,
                                   NestedExit* exit) {
  MMU_CHECK(in_l2_);
  if (!Served()) return Outcome::kError;
  const auto key = std::make_pair(paging_.root, ToGfn(nested_gpa));
  auto it = tlb_.find(key);
  if (it == tlb_.end() || !it->second.rights.Has(Needed(kind))) {
    if (it != tlb_.end()) tlb_.erase(it);
    const CpuRole role = paging_.tables == GuestTables::kEpt
                             ? EptCpuRole(paging_.ept, 0)
                             : NptCpuRole(paging_.l1);
    const GuestWalkResult walk =
        GuestWalker(paging_.tables, role, {})
            .Walk(memory_, {.table = ToGfn(paging_.root)}, nested_gpa.value(),
                  {.kind = kind});
    if (!walk.translated()) {
      *exit = {.nested_gpa = nested_gpa, .fault = walk.fault};
      in_l2_ = false;
      return Outcome::kExit;
    }
    it = tlb_.insert({key, {.gfn = walk.gfn, .rights = walk.access}}).first;
  }
  const Gpa gpa = ToGpa(it->second.gfn) + (nested_gpa.value() & kPageMask);
  if (kind == AccessKind::kWrite) {
    memory_.Store(gpa, size_bytes, *word);
  } else {
    *word = memory_.Load(gpa, size_bytes);
  }
  return Outcome::kDone;
}

bool FakeL1Cpu::Served() {
  if (accesses_left_.has_value() && (*accesses_left_)-- == 0) {
    accesses_left_ = 0;
    status_ = absl::ResourceExhaustedError("the host is out of memory");
    return false;
  }
  return true;
}

GuestWordResult FakeL1Cpu::Memory::Read(Gpa gpa, WordSize size,
                                        uint64_t* value) {
  *value = Load(gpa, static_cast<int>(size));
  return GuestWordResult::kDone;
}

GuestWordResult FakeL1Cpu::Memory::CompareExchange(Gpa gpa, WordSize size,
                                                   uint64_t expected,
                                                   uint64_t desired) {
  if (Load(gpa, static_cast<int>(size)) != expected) {
    return GuestWordResult::kChanged;
  }
  Store(gpa, static_cast<int>(size), desired);
  return GuestWordResult::kDone;
}

uint64_t FakeL1Cpu::Memory::Load(Gpa gpa, int size_bytes) {
  const uint64_t word = PageOf(gpa).words[(gpa.value() & kPageMask) / 8];
  if (size_bytes == 8) return word;
  return gpa.value() % 8 == 4 ? word >> 32 : word & 0xffff'ffff;
}

void FakeL1Cpu::Memory::Store(Gpa gpa, int size_bytes, uint64_t value) {
  Page& page = PageOf(gpa);
  page.written = true;
  uint64_t& word = page.words[(gpa.value() & kPageMask) / 8];
  if (size_bytes == 8) {
    word = value;
  } else if (gpa.value() % 8 == 4) {
    word = (word & 0xffff'ffff) | value << 32;
  } else {
    word = (word & ~uint64_t{0xffff'ffff}) | (value & 0xffff'ffff);
  }
}

std::set<Gfn> FakeL1Cpu::Memory::Written() const {
  std::set<Gfn> written;
  for (const auto& [gfn, page] : pages_) {
    if (page.written) written.insert(Gfn(gfn));
  }
  return written;
}

void FakeL1Cpu::Memory::ForgetWritten() {
  for (auto& [gfn, page] : pages_) page.written = false;
}

FakeL1Cpu::Memory::Page& FakeL1Cpu::Memory::PageOf(Gpa gpa) {
  MMU_CHECK(gpa.value() < bytes_);
  return pages_[ToGfn(gpa).value()];
}

}  // namespace mmu::testing
