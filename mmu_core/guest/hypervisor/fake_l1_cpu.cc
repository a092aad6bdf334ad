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
  Perform(gpa, size_bytes, kind, word);
  return true;
}

void FakeL1Cpu::Perform(Gpa gpa, int size_bytes, AccessKind kind,
                        uint64_t* word) {
  constexpr auto kBy = FlatMemory::By::kSoftware;
  if (kind == AccessKind::kWrite) {
    memory_.Store(gpa, size_bytes, *word, kBy);
  } else {
    *word = memory_.Load(gpa, size_bytes, kBy);
  }
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
    Entries entries(memory_);
    const GuestWalkResult walk =
        GuestWalker(paging_.tables, role, {})
            .Walk(entries, {.table = ToGfn(paging_.root)}, nested_gpa.value(),
                  {.kind = kind});
    if (!walk.translated()) {
      *exit = {.nested_gpa = nested_gpa, .fault = walk.fault};
      in_l2_ = false;
      return Outcome::kExit;
    }
    it = tlb_.insert({key, {.gfn = walk.gfn, .rights = walk.access}}).first;
  }
  const Gpa gpa = ToGpa(it->second.gfn) + (nested_gpa.value() & kPageMask);
  Perform(gpa, size_bytes, kind, word);
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

GuestWordResult FakeL1Cpu::Entries::Read(Gpa gpa, WordSize size,
                                         uint64_t* value) {
  *value = memory_.Load(gpa, static_cast<int>(size), FlatMemory::By::kPageWalk);
  return GuestWordResult::kDone;
}

GuestWordResult FakeL1Cpu::Entries::CompareExchange(Gpa gpa, WordSize size,
                                                    uint64_t expected,
                                                    uint64_t desired) {
  uint64_t value = 0;
  Read(gpa, size, &value);
  if (value != expected) return GuestWordResult::kChanged;
  memory_.Store(gpa, static_cast<int>(size), desired,
                FlatMemory::By::kPageWalk);
  return GuestWordResult::kDone;
}

}  // namespace mmu::testing
