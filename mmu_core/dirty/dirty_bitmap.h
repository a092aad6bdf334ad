// The dirty bitmap of one memslot: one bit per page, with a summary above it.
//
//   live words     bit p % 64 of word p / 64 is page p (SLOT-52)
//   scratch words  the same number, directly behind them (SLOT-50): temporary
//                  room for bits that were taken
//   summary 1      one bit per live word
//   summary 2      one bit per word of summary 1, that is per 4096 pages
//
// The summaries let a reader skip clean pages: reading the bitmap of a 1 TiB
// slot costs time in proportion to its dirty pages, plus 8 KiB of summary 2.
//
// Rule 1: once Mark(p) has returned, every summary bit above p is set until p's
//        bit has been taken. A set summary bit means "perhaps", a clear one
//        means "nothing below that was marked before".
// Rule 2: bits at or beyond npages() are never set (SLOT-51).
//
// This class does not deal with SPTEs: other code decides when a page is marked
// (SLOT-53) and write-protected again (DL-15).

#ifndef MMU_CORE_DIRTY_DIRTY_BITMAP_H_
#define MMU_CORE_DIRTY_DIRTY_BITMAP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/zeroed_memory.h"
#include "mmu_core/dirty/dirty_log_types.h"

namespace mmu {

// A word of a bitmap: bit i is page 64 * index + i of the slot. A value.
struct BitmapWord {
  uint64_t index = 0;
  uint64_t bits = 0;

  friend bool operator==(const BitmapWord&, const BitmapWord&) = default;
};

// How many threads change a bitmap: many at the same time, or one at a time
// under a lock, which saves locked instructions. In the latter case readers
// hold that lock, too.
enum class BitmapWriters : uint8_t { kMany, kOneAtATime };

// With many writers: thread-safe, except SetAll(), TakeAll() and scratch(). Any
// number of threads may mark while others read and one takes; each set bit is
// taken exactly once. With one writer at a time: externally synchronised.
//
// A thread that finds its page already marked does not write to the bitmap.
// Then the TLB flush between taking the bit and copying the page makes the
// page's bytes visible to the taker, as on hardware (DL-11).
class DirtyBitmap {
 public:
  // Like the constructor, but null if the host has no memory for the bitmap.
  static std::shared_ptr<DirtyBitmap> TryCreate(
      uint64_t npages, InitiallySet initially_set,
      BitmapWriters writers = BitmapWriters::kMany);

  // `npages` is 1 to 2^31 - 1. An allocation of a page or more uses no memory
  // until it is written.
  DirtyBitmap(uint64_t npages, InitiallySet initially_set);
  ~DirtyBitmap() = default;
  DirtyBitmap(const DirtyBitmap&) = delete;
  DirtyBitmap& operator=(const DirtyBitmap&) = delete;

  uint64_t npages() const { return npages_; }
  // The number of words in one half.
  uint64_t word_count() const { return word_count_; }
  // Bytes of one half: round_up(npages, 64) / 8 (SLOT-50).
  uint64_t size_bytes() const { return word_count_ * sizeof(uint64_t); }
  // Bytes of both halves.
  uint64_t allocated_bytes() const { return 2 * size_bytes(); }

  // Sets the bit of `page` (relative to the slot, < npages()). Returns true if
  // this call changed it from clean to dirty.
  bool Mark(uint64_t page);
  // Marks the pages of `bits` in word `i`, and returns those that this call
  // changed from clean to dirty.
  uint64_t MarkWord(uint64_t i, uint64_t bits);
  bool Test(uint64_t page) const;

  // Sets the first npages() bits and leaves the padding clear (SLOT-51). No
  // other thread may mark or take meanwhile.
  void SetAll();

  // In the following, `i` < word_count().
  uint64_t Word(uint64_t i) const;
  // Clears the bits of `mask` and returns those that were set (DL-24). Leaves
  // the summaries unchanged: a set summary bit only means "perhaps".
  uint64_t ClearBits(uint64_t i, uint64_t mask);

  uint64_t CountDirty() const;

  using WordFn = absl::FunctionRef<void(uint64_t i, uint64_t value)>;

  // Calls `fn` for each non-zero word of [first_word, end_word), in order; the
  // summaries let it skip zero words. Sees every mark that returned before the
  // call.
  void ForEachNonZeroWord(uint64_t first_word, uint64_t end_word,
                          WordFn fn) const;

  // Calls `fn` for each non-zero word of [first_word, end_word), in order, and
  // clears the bits passed to `fn` after `fn` has returned: until then the
  // pages stay in this bitmap, too (INV-10 of slot_log.h). Takes every mark
  // that returned before the call; marks that it does not take can still be
  // found later. One thread at a time; no other thread may clear bits of these
  // words meanwhile.
  void TakeAll(uint64_t first_word, uint64_t end_word, WordFn fn);

  // Ors the live words from `first_word` on into `out`.
  void OrInto(uint64_t first_word, absl::Span<uint64_t> out) const;

  // The scratch half, word_count() words. Externally synchronised by the
  // slots_lock (DL-10).
  absl::Span<uint64_t> scratch() {
    return absl::MakeSpan(words_ + word_count_, word_count_);
  }

 private:
  DirtyBitmap(uint64_t npages, BitmapWriters writers, ZeroedMemory memory);

  // May return an empty object.
  static ZeroedMemory Allocate(uint64_t npages);
  void RaiseSummaries(uint64_t i);
  void Raise(uint64_t* words, uint64_t n);
  // Set or clear bits of one word; return its previous value.
  uint64_t Or(uint64_t& word, uint64_t bits);
  uint64_t AndNot(uint64_t& word, uint64_t bits);

  // All immutable after construction; the words are accessed as atomics.
  const ZeroedMemory memory_;
  const BitmapWriters writers_;
  const uint64_t npages_;
  const uint64_t word_count_;
  const uint64_t summary1_count_;
  uint64_t* const words_;
  uint64_t* const summary1_;
  uint64_t* const summary2_;
};

// Implementation details follow.

// With one writer at a time the writers' lock orders all accesses. The store is
// a release nevertheless: a page's bits enter their new set before they leave
// the old one, also for a reader of the memory of a process that died in
// between.
inline uint64_t DirtyBitmap::Or(uint64_t& word, uint64_t bits) {
  std::atomic_ref<uint64_t> atomic(word);
  if (writers_ == BitmapWriters::kMany) {
    return atomic.fetch_or(bits, std::memory_order_seq_cst);
  }
  const uint64_t before = atomic.load(std::memory_order_relaxed);
  atomic.store(before | bits, std::memory_order_release);
  return before;
}

inline uint64_t DirtyBitmap::AndNot(uint64_t& word, uint64_t bits) {
  std::atomic_ref<uint64_t> atomic(word);
  if (writers_ == BitmapWriters::kMany) {
    return atomic.fetch_and(~bits, std::memory_order_seq_cst);
  }
  const uint64_t before = atomic.load(std::memory_order_relaxed);
  atomic.store(before & ~bits, std::memory_order_release);
  return before;
}

inline uint64_t DirtyBitmap::MarkWord(uint64_t i, uint64_t bits) {
  MMU_DCHECK(i < word_count_);
  MMU_DCHECK(i + 1 < word_count_ || npages_ % 64 == 0 ||
             bits >> (npages_ % 64) == 0);
  if (bits == 0) return 0;
  const uint64_t before = Or(words_[i], bits);
  RaiseSummaries(i);
  return bits & ~before;
}

inline void DirtyBitmap::RaiseSummaries(uint64_t i) {
  Raise(summary1_, i);
  Raise(summary2_, i / 64);
}

// Sets a bit unless it is set already. Mark explains the order.
inline void DirtyBitmap::Raise(uint64_t* words, uint64_t n) {
  uint64_t& word = words[n / 64];
  const uint64_t bit = BitOf(n);
  if ((std::atomic_ref<uint64_t>(word).load(std::memory_order_seq_cst) & bit) ==
      0) {
    Or(word, bit);
  }
}

inline uint64_t DirtyBitmap::Word(uint64_t i) const {
  MMU_DCHECK(i < word_count_);
  return std::atomic_ref<uint64_t>(words_[i]).load(std::memory_order_seq_cst);
}

inline uint64_t DirtyBitmap::ClearBits(uint64_t i, uint64_t mask) {
  MMU_DCHECK(i < word_count_);
  return AndNot(words_[i], mask) & mask;
}

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_BITMAP_H_
