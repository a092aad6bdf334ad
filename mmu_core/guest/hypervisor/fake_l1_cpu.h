// A processor for tests of a hypervisor in L1: flat memory, GuestWalker's walk
// of L1's tables, and a TLB that keeps every translation until it is
// invalidated.

#ifndef MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu::testing {

// Thread-compatible.
class FakeL1Cpu : public L1Cpu {
 public:
  explicit FakeL1Cpu(uint64_t memory_bytes) : memory_(memory_bytes) {}

  bool Access(Gpa gpa, int size_bytes, AccessKind kind,
              uint64_t* word) override;
  void InveptSingleContext(Gpa root) override;
  void InveptGlobal() override { tlb_.clear(); }
  void FlushAsid() override { flush_asid_ = true; }
  void EnterL2(const NestedPaging& paging) override;
  Outcome L2Access(Gpa nested_gpa, int size_bytes, AccessKind kind,
                   uint64_t* word, NestedExit* exit) override;
  void LeaveL2() override;
  absl::Status status() const override { return status_; }

  // Makes all accesses after `count` more fail, as on a host without memory.
  void FailAfter(uint64_t count) { accesses_left_ = count; }

  FlatMemory& memory() { return memory_; }

 private:
  // The memory, as a walk of L1's tables accesses it.
  class Entries final : public GuestWords {
   public:
    explicit Entries(FlatMemory& memory) : memory_(memory) {}
    GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override;
    GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                    uint64_t desired) override;

   private:
    FlatMemory& memory_;
  };
  struct Translation {
    Gfn gfn;
    AccessRights rights;
  };

  bool Served();
  void Perform(Gpa gpa, int size_bytes, AccessKind kind, uint64_t* word);

  FlatMemory memory_;
  bool in_l2_ = false;
  bool flush_asid_ = false;
  NestedPaging paging_;
  // By root and nested frame; large pages are kept as 4 KiB entries.
  std::map<std::pair<Gpa, Gfn>, Translation> tlb_;
  std::optional<uint64_t> accesses_left_;
  absl::Status status_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_
