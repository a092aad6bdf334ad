// A processor for tests of a hypervisor in L1: flat memory, GuestWalker's walk
// of L1's tables, and caches that keep everything until it is invalidated:
//   - a TLB, tagged by EP4TA (the root) or ASID,
//   - combined mappings,
//   - a paging-structure cache: entries that point at tables.
// An exit of L2 invalidates what the walk used, on this processor.

#ifndef MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/hypervisor/combined_mappings.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu::testing {

// Thread-compatible. Several processors that share a memory run one at a time
// (fake_l1_machine.h).
class FakeL1Cpu : public L1Cpu {
 public:
  explicit FakeL1Cpu(uint64_t memory_bytes)
      : own_(memory_bytes), memory_(*own_) {}
  // `turn` is called before each access, and by Pause. Other processors may run
  // in it.
  enum class Turn : uint8_t { kAccess, kPause };
  FakeL1Cpu(FlatMemory& memory, std::function<void(Turn)> turn)
      : memory_(memory), turn_(std::move(turn)) {}

  bool Access(Gpa gpa, int size_bytes, AccessKind kind,
              uint64_t* word) override;
  void Pause() override;
  void InveptSingleContext(Gpa root) override;
  void InveptGlobal() override;
  void InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) override;
  void FlushAsid() override { flush_asid_ = true; }
  void EnterL2(const NestedPaging& paging) override;
  Outcome L2Access(const NestedAccess& access, uint64_t* word,
                   NestedExit* exit) override;
  CombinedMappings& combined() override { return combined_; }
  void LeaveL2() override;
  absl::Status status() const override { return status_; }

  // In L2: walks L1's tables for an address that L2 does not access, as a
  // processor may. Keeps the links, even if the walk finds no page.
  void Speculate(Gpa nested_gpa);

  // Makes all accesses after `count` more fail, as on a host without memory.
  void FailAfter(uint64_t count) { accesses_left_ = count; }

  FlatMemory& memory() { return memory_; }
  // Number of accesses of L2 that the TLB did not serve.
  uint64_t walks() const { return walks_; }

 private:
  // By tag and address of an entry: links to tables.
  using Links = std::map<std::pair<uint64_t, Gpa>, uint64_t>;
  // The memory, as a walk of L1's tables accesses it.
  class Entries final : public GuestWords {
   public:
    Entries(FlatMemory& memory, const Links& links, uint64_t tag)
        : memory_(memory), links_(links), tag_(tag) {}
    GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override;
    GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                    uint64_t desired) override;

   private:
    FlatMemory& memory_;
    const Links& links_;
    const uint64_t tag_;
  };
  struct Translation {
    Gfn gfn;
    AccessRights rights;
  };

  GuestWalkResult Walk(const NestedAccess& access);
  // Calls fn(key in `links_`, entry) for each link that the walk used.
  template <typename Fn>
  void ForEachLink(const GuestWalkResult& walk, Fn fn);
  bool Served();
  void Perform(Gpa gpa, int size_bytes, AccessKind kind, uint64_t* word);
  // The tag of the translations of the guest that runs.
  uint64_t Tag() const;
  void Forget(uint64_t tag);

  std::optional<FlatMemory> own_;
  FlatMemory& memory_;
  const std::function<void(Turn)> turn_;
  bool in_l2_ = false;
  bool flush_asid_ = false;
  NestedPaging paging_;
  // By tag and nested frame; large pages are kept as 4 KiB entries.
  std::map<std::pair<uint64_t, Gfn>, Translation> tlb_;
  Links links_;
  CombinedMappings combined_;
  uint64_t walks_ = 0;
  std::optional<uint64_t> accesses_left_;
  absl::Status status_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_
