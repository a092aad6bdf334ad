// The expected contents of a VM's memory: a word of each page, and all words of
// the pages that may be tables of the guest.

#ifndef TESTS_MODEL_MODEL_MEMORY_H_
#define TESTS_MODEL_MODEL_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "tests/model/guest_layout.h"
#include "tests/model/reference_model.h"

namespace mmu::testing {

// What a read finds where there is no memory.
inline constexpr uint64_t kNoMemory = ~uint64_t{0};

// Keeps the log of `model` right, too. Thread-compatible.
class ModelMemory {
 public:
  static constexpr size_t kWordsPerPage = 512;

  // `granule`: the pages that one write may mark.
  ModelMemory(ReferenceModel& model, uint64_t granule)
      : model_(model), granule_(granule), pool_(kPoolPages * kWordsPerPage) {}

  // Whether the page may be a table of the guest, if the guest has tables.
  bool IsInPool(uint64_t page) const {
    return model_.slot(kGuestSlot).has_value() && testing::IsInPool(page);
  }

  // A value that was not written before; no entry of a table equals it.
  uint64_t NewValue() { return uint64_t{0x7a5e} << 48 | ++values_; }

  // The first word of a page; kNoMemory where there is no slot.
  uint64_t WordOf(uint64_t page) const {
    const ModelSlot* slot = model_.SlotAt(page);
    if (slot == nullptr) return kNoMemory;
    return IsInPool(page) ? PoolWord(page, 0)
                          : slot->contents[page - slot->base_page];
  }
  bool IsWritable(uint64_t page) const {
    const ModelSlot* slot = model_.SlotAt(page);
    return slot != nullptr && !slot->readonly;
  }
  // The page was read, or mapped, and may be in the log, as may all of its
  // granule.
  void Touched(uint64_t page) {
    ModelSlot* slot = model_.SlotAt(page);
    if (slot == nullptr || slot->readonly) return;
    const uint64_t first = (page - slot->base_page) / granule_ * granule_;
    for (uint64_t i = 0; i < granule_; ++i) {
      ReferenceModel::Touched(*slot, first + i);
    }
  }
  // The first word of the page was written. No effect where nothing can be.
  void Written(uint64_t page, uint64_t value) {
    if (IsInPool(page)) return PoolWritten(page, 0, value);
    ModelSlot* slot = model_.SlotAt(page);
    if (slot == nullptr || slot->readonly) return;
    ReferenceModel::Written(*slot, page - slot->base_page, value);
  }

  // The words of a page of the pool. REQUIRES, here and below: IsInPool(page).
  absl::Span<const uint64_t> PoolWords(uint64_t page) const {
    return absl::MakeConstSpan(pool_).subspan(
        (page - kGuestBase) * kWordsPerPage, kWordsPerPage);
  }
  uint64_t PoolWord(uint64_t page, size_t word) const {
    return PoolWords(page)[word];
  }
  void PoolWritten(uint64_t page, size_t word, uint64_t value) {
    pool_[(page - kGuestBase) * kWordsPerPage + word] = value;
    ReferenceModel::Written(*model_.slot(kGuestSlot), page - kGuestBase,
                            ++changes_);
  }

 private:
  ReferenceModel& model_;
  const uint64_t granule_;
  std::vector<uint64_t> pool_;
  uint64_t values_ = 0;
  uint64_t changes_ = 0;
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_MODEL_MEMORY_H_
