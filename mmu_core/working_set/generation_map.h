// The generations of the pages of one memslot: a byte per page, which tells in
// which generation the page was last found young
// (working_set/generation_age.h).
//
// Memory: one byte per page of 4 KiB, and one bit per chunk of 4096 pages. It
// is allocated at once, but the host gives it only when it is written: a chunk
// without a young page costs nothing, and no pass reads it.
//
// Pages are numbered from the beginning of the slot, so a slot that moves keeps
// its map.

#ifndef MMU_CORE_WORKING_SET_GENERATION_MAP_H_
#define MMU_CORE_WORKING_SET_GENERATION_MAP_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "mmu_core/base/zeroed_memory.h"
#include "mmu_core/working_set/age_run_joiner.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {

// One thread at a time may write; any number of threads may read beside it. A
// reader sees for each page the byte from before a write that runs beside it or
// the byte from after it.
class GenerationMap {
 public:
  // A map in which no page was found young. Null if the host has no memory.
  // `npages` is 1 to 2^31 - 1.
  static std::shared_ptr<GenerationMap> TryCreate(uint64_t npages);
  ~GenerationMap() = default;
  GenerationMap(const GenerationMap&) = delete;
  GenerationMap& operator=(const GenerationMap&) = delete;

  uint64_t npages() const { return npages_; }
  uint64_t allocated_bytes() const { return memory_.bytes(); }

  // In the following, pages [first, end) lie within the slot.

  // --- The writer ---

  // Enters generation `sequence`, at least 1, for each page of [first, end)
  // whose bit in `young` is set. Bit `first_bit` of `young` is page `first`;
  // `young` has a bit for each page.
  void Record(uint64_t first, uint64_t end, absl::Span<const uint64_t> young,
              uint64_t first_bit, uint64_t sequence);
  // The same for all pages of [first, end).
  void RecordAll(uint64_t first, uint64_t end, uint64_t sequence);

  // Gives the pages that are older than kMaxGenerationAge that age. It has to
  // run at least once in kClampInterval generations: after that, the bytes of
  // old pages would tell wrong ages.
  void Clamp(uint64_t newest);

  // --- Readers. `newest` is the newest generation. ---

  GenerationAge AgeOf(uint64_t page, uint64_t newest) const;
  // Adds the pages of the slot to `histogram`.
  void AddTo(AgeHistogram& histogram, const GenerationAges& ages) const;
  // The age of the youngest page of [first, end); kNeverYoung if it is empty.
  GenerationAge YoungestOf(uint64_t first, uint64_t end,
                           const GenerationAges& ages) const;

  // Calls `fn` for each maximal run of pages of equal age in [first, end), in
  // ascending order. `fn` may change `ages`, which holds for the pages that
  // follow.
  void ForEachRun(uint64_t first, uint64_t end, const GenerationAges& ages,
                  AgeRunFn fn) const;

 private:
  GenerationMap(uint64_t npages, ZeroedMemory memory);

  uint64_t Load(uint64_t i) const;
  void Store(uint64_t i, uint64_t word);
  // Sets the bytes of those pages of group `group` that are set in `young`.
  void RecordGroup(uint64_t group, uint64_t young, uint64_t filled);
  bool IsUsed(uint64_t chunk) const;
  void MarkUsed(uint64_t chunk);
  // Calls fn(i, word) for each word of the chunks that are used, in ascending
  // order; returns their number.
  template <typename Fn>
  uint64_t ForEachUsedWord(Fn fn) const;

  // All immutable after construction; the words are accessed as atomics.
  const ZeroedMemory memory_;
  const uint64_t npages_;
  const uint64_t word_count_;
  uint64_t* const words_;
  uint64_t* const used_;
};

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_GENERATION_MAP_H_
