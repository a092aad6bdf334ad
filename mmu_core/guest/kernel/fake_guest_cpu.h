// Processors for tests of a guest's kernel: flat memory, a page walk as the
// manual defines it, and caches that keep all that the architecture lets them
// keep.

#ifndef MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_
#define MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/kernel/guest_cpu.h"

namespace mmu::testing {

// A processor of a machine with one or several, which share the memory. It has
// a TLB and a paging-structure cache (SDM vol. 3, 4.10.2 and 4.10.3), tagged by
// PCID. An entry goes only when an instruction or a page fault must drop it,
// and right after an instruction the processor caches anew what it used last.
// So an invalidation that a kernel forgets, or executes too early, has its
// effect at the next access.
//
// Thread-compatible: one thread runs all processors of a machine. While one
// relaxes, on_relax lets the others act.
class FakeGuestCpu : public GuestCpu {
 public:
  explicit FakeGuestCpu(uint64_t memory_bytes)
      : memory_(std::make_shared<FlatMemory>(memory_bytes)) {}
  // Another processor of the machine of `first`.
  explicit FakeGuestCpu(const FakeGuestCpu& first) : memory_(first.memory_) {}

  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override;
  void EnablePaging(const PagingGeometry& geometry, Gpa cr3) override;
  void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) override;
  void Invlpg(Gva gva) override;
  void InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) override;
  bool Relax() override;
  absl::Status status() const override { return status_; }

  // Makes all accesses after `count` more fail, as on a host without memory.
  void FailAfter(uint64_t count) { accesses_left_ = count; }
  // Called when this processor waits for another one. False: the guest is to
  // stop. Without it, waiting is an error.
  void set_on_relax(std::function<bool()> act) { on_relax_ = std::move(act); }

  // Walks the tables for a read by a program that never happens, as a processor
  // may at any time, and caches what it finds. Never faults.
  void Prefetch(Gva gva);

  FlatMemory& memory() { return *memory_; }
  // The frames that the processor can reach with what it has cached for the
  // current PCID: tables, and pages of programs.
  std::set<Gfn> ReachableTables() const;
  std::set<Gfn> ReachableUserPages() const;
  // Whether it has cached a translation of `gva` by a large page.
  bool CachesLarge(Gva gva) const;

 private:
  struct Translation {
    Gpa page;
    bool write;
    bool user;
    bool dirty;
    bool large;
  };
  // What an entry that points to a table says, together with those above it.
  struct Upper {
    Gpa table;
    bool write;
    bool user;
  };

  const Upper* CachedUpper(Gva gva, int level) const;
  std::optional<Translation> Walk(Gva gva, AccessKind kind, Privilege privilege,
                                  GuestPageFault* fault);
  // What a page fault drops (SDM vol. 3, 4.10.4.1).
  void DropForFault(Gva gva);
  // Caches again what a program accessed last.
  void Refill() {
    if (last_.has_value()) Prefetch(*last_);
  }
  void DropPage(Pcid pcid, Gva gva);
  void DropUpper(Pcid pcid, Gva gva);
  void DropAllUpper(Pcid pcid);
  void DropContext(Pcid pcid);

  const std::shared_ptr<FlatMemory> memory_;
  const PagingGeometry* geometry_ = nullptr;  // null: paging is off
  Gpa cr3_;
  Pcid pcid_ = 0;
  std::vector<uint64_t> pdptes_;  // PAE: loaded with CR3
  // By PCID and page number. Large pages are kept as 4 KiB entries.
  std::map<std::pair<Pcid, uint64_t>, Translation> tlb_;
  // By PCID, level of the entry, and the address bits that select it.
  std::map<std::tuple<Pcid, int, uint64_t>, Upper> upper_;
  std::optional<Gva> last_;  // that a program accessed
  std::optional<uint64_t> accesses_left_;
  std::function<bool()> on_relax_;
  absl::Status status_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_
