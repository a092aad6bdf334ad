// Guest memory in which a test writes tables, entry by entry.

#ifndef MMU_CORE_TESTING_GUEST_MEMORY_TEST_UTIL_H_
#define MMU_CORE_TESTING_GUEST_MEMORY_TEST_UTIL_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

class GuestMemory {
 public:
  explicit GuestMemory(std::vector<MemslotConfig> slots = {Slot(0, 0, 4 << 20)})
      : vm_(MakeVm(std::move(slots))), words_(vm_->state().slots, 0, nullptr) {}

  Vm& vm() { return *vm_; }
  GuestMemoryAccess& words() { return words_; }

  // Zeroes the first 16 pages, where tests have their tables.
  void Clear() { std::memset(PointerTo(0), 0, 16 * kPageSize); }

  // Writes without marking, as if the value had been there from the start.
  void Put(uint64_t gpa_bytes, uint64_t value, WordSize size = WordSize::k8) {
    std::memcpy(PointerTo(gpa_bytes), &value, static_cast<size_t>(size));
  }
  uint64_t Get(uint64_t gpa_bytes, WordSize size = WordSize::k8) {
    uint64_t value = 0;
    std::memcpy(&value, PointerTo(gpa_bytes), static_cast<size_t>(size));
    return value;
  }
  // Writes entry `index` of the table at `table_bytes`.
  void PutEntry(uint64_t table_bytes, int index, uint64_t value,
                WordSize size = WordSize::k8) {
    Put(table_bytes +
            static_cast<uint64_t>(index) * static_cast<uint64_t>(size),
        value, size);
  }

 private:
  std::byte* PointerTo(uint64_t gpa_bytes) {
    const Gpa gpa(gpa_bytes);
    RcuReadGuard rcu;  // the slots of these tests stay
    const Memslot* slot = vm_->state().slots.Active(0).FindByGfn(ToGfn(gpa));
    MMU_CHECK(slot != nullptr);
    return slot->backing->PointerTo(slot->HvaOf(ToGfn(gpa))) +
           (gpa_bytes & kPageMask);
  }

  const std::unique_ptr<Vm> vm_;
  GuestMemoryAccess words_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_GUEST_MEMORY_TEST_UTIL_H_
