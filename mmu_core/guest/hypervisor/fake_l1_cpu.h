// A processor for tests of a hypervisor in L1: flat memory, GuestWalker's walk
// of L1's tables, and a TLB that forgets nothing until it is told to.

#ifndef MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
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

  // Fails each access after `count` more, as a host without memory would.
  void FailAfter(uint64_t count) { accesses_left_ = count; }

  uint64_t WordAt(Gpa gpa) { return memory_.Load(gpa, 8); }
  // Frames of L1 that L1 or L2 wrote to, or in which the processor set Accessed
  // or Dirty bits.
  std::set<Gfn> Written() const { return memory_.Written(); }
  void ForgetWritten() { memory_.ForgetWritten(); }

 private:
  class Memory final : public GuestWords {
   public:
    explicit Memory(uint64_t bytes) : bytes_(bytes) {}

    GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override;
    GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                    uint64_t desired) override;
    uint64_t Load(Gpa gpa, int size_bytes);
    void Store(Gpa gpa, int size_bytes, uint64_t value);
    std::set<Gfn> Written() const;
    void ForgetWritten();

   private:
    struct Page {
      std::array<uint64_t, kPageSize / 8> words{};
      bool written = false;
    };
    Page& PageOf(Gpa gpa);

    const uint64_t bytes_;
    std::unordered_map<uint64_t, Page> pages_;  // by gfn; those in use
  };
  struct Translation {
    Gfn gfn;
    AccessRights rights;
  };

  bool Served();

  Memory memory_;
  bool in_l2_ = false;
  bool flush_asid_ = false;
  NestedPaging paging_;
  // By root and nested frame; entries of large pages are kept per 4 KiB.
  std::map<std::pair<Gpa, Gfn>, Translation> tlb_;
  std::optional<uint64_t> accesses_left_;
  absl::Status status_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_CPU_H_
