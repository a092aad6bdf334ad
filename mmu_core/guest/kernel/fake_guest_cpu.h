// A processor for tests of a guest's kernel: flat memory, a page walk by the
// book, and a TLB that forgets nothing until it is told to.

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

  // Fails each access after `count` more, as a host without memory would.
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
  std::vector<uint64_t> pdptes_;  // PAE: as of the last load of CR3
  // By CR3 and page number. Entries of large pages are kept per 4 KiB.
  std::map<std::pair<uint64_t, uint64_t>, Translation> tlb_;
  std::optional<uint64_t> accesses_left_;
  absl::Status status_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_KERNEL_FAKE_GUEST_CPU_H_
