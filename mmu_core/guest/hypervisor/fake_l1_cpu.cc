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
  if (turn_ != nullptr) turn_(Turn::kAccess);
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

void FakeL1Cpu::Pause() {
  MMU_CHECK(!in_l2_);
  // Nobody else could end the wait.
  MMU_CHECK(turn_ != nullptr);
  turn_(Turn::kPause);
}

uint64_t FakeL1Cpu::Tag() const {
  return paging_.tables == GuestTables::kEpt ? paging_.root.value()
                                             : uint64_t{paging_.asid};
}

void FakeL1Cpu::Forget(uint64_t tag) {
  std::erase_if(tlb_, [tag](const auto& t) { return t.first.first == tag; });
  std::erase_if(links_, [tag](const auto& l) { return l.first.first == tag; });
}

void FakeL1Cpu::InveptSingleContext(Gpa root) {
  MMU_CHECK(!in_l2_);
  Forget(root.value());
  combined_.Invept(root);
}

void FakeL1Cpu::InveptGlobal() {
  MMU_CHECK(!in_l2_);
  tlb_.clear();
  links_.clear();
  combined_.InveptGlobal();
}

void FakeL1Cpu::InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) {
  MMU_CHECK(!in_l2_);
  combined_.InvalidateVpid(what, vpid, gva);
}

void FakeL1Cpu::EnterL2(const NestedPaging& paging) {
  MMU_CHECK(!in_l2_);
  in_l2_ = true;
  paging_ = paging;
  combined_.Enter(paging.asid, paging.ep4ta());
  if (!std::exchange(flush_asid_, false)) return;
  Forget(Tag());
  combined_.InvalidateVpid(Invvpid::kSingleContext, paging.asid, Gva(0));
}

void FakeL1Cpu::LeaveL2() {
  MMU_CHECK(in_l2_);
  in_l2_ = false;
}

GuestWalkResult FakeL1Cpu::Walk(const NestedAccess& access) {
  const CpuRole role = paging_.tables == GuestTables::kEpt
                           ? EptCpuRole(paging_.ept, 0)
                           : NptCpuRole(paging_.l1);
  Entries entries(memory_, links_, Tag());
  return GuestWalker(paging_.tables, role, {})
      .Walk(entries, {.table = ToGfn(paging_.root)}, access.nested_gpa.value(),
            {.kind = access.kind, .target = access.target});
}

template <typename Fn>
void FakeL1Cpu::ForEachLink(const GuestWalkResult& walk, Fn fn) {
  for (int level = walk.top_level; level > walk.level; --level) {
    const GuestWalkStep& step = walk.step(level);
    fn(std::make_pair(Tag(), step.entry_gpa), step.entry);
  }
}

void FakeL1Cpu::Speculate(Gpa nested_gpa) {
  MMU_CHECK(in_l2_);
  ForEachLink(Walk({.nested_gpa = nested_gpa}),
              [&](const auto& link, uint64_t entry) { links_[link] = entry; });
}

L1Cpu::Outcome FakeL1Cpu::L2Access(const NestedAccess& access, uint64_t* word,
                                   NestedExit* exit) {
  MMU_CHECK(in_l2_);
  if (turn_ != nullptr) turn_(Turn::kAccess);
  if (!Served()) return Outcome::kError;
  const auto key = std::make_pair(Tag(), ToGfn(access.nested_gpa));
  auto it = tlb_.find(key);
  if (it == tlb_.end() || !it->second.rights.Has(Needed(access.kind))) {
    if (it != tlb_.end()) tlb_.erase(it);
    ++walks_;
    const GuestWalkResult walk = Walk(access);
    ForEachLink(walk, [&](const auto& link, uint64_t entry) {
      if (walk.translated()) {
        links_[link] = entry;
      } else {
        links_.erase(link);
      }
    });
    if (!walk.translated()) {
      *exit = {.nested_gpa = access.nested_gpa,
               .kind = access.kind,
               .fault = walk.fault};
      in_l2_ = false;
      return Outcome::kExit;
    }
    it = tlb_.insert({key, {.gfn = walk.gfn, .rights = walk.access}}).first;
  }
  const Gpa gpa =
      ToGpa(it->second.gfn) + (access.nested_gpa.value() & kPageMask);
  Perform(gpa, access.size_bytes, access.kind, word);
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
  if (const auto link = links_.find({tag_, gpa}); link != links_.end()) {
    *value = link->second;
    return GuestWordResult::kDone;
  }
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
