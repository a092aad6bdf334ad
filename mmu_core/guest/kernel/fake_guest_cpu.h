// A processor for tests of a guest's kernel: flat memory, a page walk as the
// manual defines it, and a TLB that keeps every translation until it is
// invalidated.

#ifndef MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_
#define MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/kernel/guest_cpu.h"

namespace mmu::testing {

// Thread-compatible.
class FakeGuestCpu : public GuestCpu {
 public:
  explicit FakeGuestCpu(uint64_t memory_bytes) : memory_(memory_bytes) {}

  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override;
  void EnablePaging(const PagingGeometry& geometry, Gpa cr3) override;
  void LoadCr3(Gpa cr3, Cr3Load how) override;
  void Invlpg(Gva gva) override;
  absl::Status status() const override { return status_; }

  // Makes all accesses after `count` more fail, as on a host without memory.
  void FailAfter(uint64_t count) { accesses_left_ = count; }

  FlatMemory& memory() { return memory_; }

 private:
  struct Translation {
    Gpa page;
    bool write;
    bool user;
    bool dirty;
    bool large;
  };

  std::optional<Translation> Walk(Gva gva, AccessKind kind, Privilege privilege,
                                  GuestPageFault* fault);

  FlatMemory memory_;
  const PagingGeometry* geometry_ = nullptr;  // null: paging is off
  Gpa cr3_;
  std::vector<uint64_t> pdptes_;  // PAE: loaded with CR3
  // By CR3 and page number. Large pages are kept as 4 KiB entries.
  std::map<std::pair<uint64_t, uint64_t>, Translation> tlb_;
  std::optional<uint64_t> accesses_left_;
  absl::Status status_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_
