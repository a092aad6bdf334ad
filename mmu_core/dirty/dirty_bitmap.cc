#include "mmu_core/dirty/dirty_bitmap.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/types/span.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/zeroed_memory.h"
#include "mmu_core/dirty/dirty_log_types.h"

namespace mmu {
namespace {

constexpr uint64_t kMaxPages = (uint64_t{1} << 31) - 1;

using AtomicWord = std::atomic_ref<uint64_t>;

}  // namespace

ZeroedMemory DirtyBitmap::Allocate(uint64_t npages) {
  MMU_CHECK(npages > 0 && npages <= kMaxPages);
  const uint64_t words = WordsFor(npages);
  const uint64_t summary1 = WordsFor(words);
  return ZeroedMemory::TryAllocate((2 * words + summary1 + WordsFor(summary1)) *
                                   sizeof(uint64_t));
}

std::shared_ptr<DirtyBitmap> DirtyBitmap::TryCreate(uint64_t npages,
                                                    InitiallySet initially_set,
                                                    BitmapWriters writers) {
  ZeroedMemory memory = Allocate(npages);
  if (!memory) return nullptr;
  std::shared_ptr<DirtyBitmap> bitmap(
      new DirtyBitmap(npages, writers, std::move(memory)));
  if (initially_set == InitiallySet::kYes) bitmap->SetAll();
  return bitmap;
}

DirtyBitmap::DirtyBitmap(uint64_t npages, InitiallySet initially_set)
    : DirtyBitmap(npages, BitmapWriters::kMany, Allocate(npages)) {
  if (initially_set == InitiallySet::kYes) SetAll();
}

DirtyBitmap::DirtyBitmap(uint64_t npages, BitmapWriters writers,
                         ZeroedMemory memory)
    : memory_(std::move(memory)),
      writers_(writers),
      npages_(npages),
      word_count_(WordsFor(npages)),
      summary1_count_(WordsFor(word_count_)),
      words_(static_cast<uint64_t*>(memory_.get())),
      summary1_(words_ + 2 * word_count_),
      summary2_(summary1_ + summary1_count_) {
  MMU_CHECK(memory_);
}

// The marker and the taker access the three words of a page in opposite order:
//
//   marker: set live bit,     raise summary 1, raise summary 2
//   taker:  clear summary 2,  clear summary 1, read live word,
//           pass the bits to `fn`, clear those bits of the live word
//
// This is the store-buffer pattern, twice: each side writes, then reads a word
// that the other wrote. So all accesses are sequentially consistent. (On x86
// such loads cost the same as others, and the rest are locked instructions
// anyway.)
//
// Suppose the taker's read misses the marker's bit. Then the read comes before
// the store of the bit. The marker finds both summaries cleared (or raised
// again since) and raises them; the taker clears only the bits that it has
// read, so the bit stays. If the read sees the bit, the taker takes it. If the
// taker never reaches the word, because a summary did not show it yet, then the
// marker raises that summary after the taker cleared it, and by the same
// argument summary 2. No order loses the mark.
//
// Between the read and the clear, the bits are in both places: here and where
// `fn` put them (INV-10). A marker that finds its bit set in between is
// equivalent to one that came before the taker.
//
// A marker that finds the bit already set must raise the summaries too:
//   1. A sets the live bit and is preempted before it raises a summary.
//   2. B marks the same page, finds the bit set, and returns at once.
//   3. A taker looks at the summaries, sees nothing, and skips the word.
// The taker would then miss B's mark although it had returned, against rule 1.
// Therefore B raises the summaries that A has not raised yet; usually that is
// two loads that find the bits set.
bool DirtyBitmap::Mark(uint64_t page) {
  MMU_DCHECK(page < npages_);
  const uint64_t i = page / kWordBits;
  const uint64_t bit = BitOf(page);
  AtomicWord word(words_[i]);
  bool was_clean = false;
  // Sequentially consistent, like the taker's read and AND. Otherwise both of
  // these might happen: a marker makes an SPTE writable and then finds its page
  // already marked; a taker takes that mark and then finds the SPTE not
  // writable. On x86 this costs nothing over a weaker order.
  if ((word.load(std::memory_order_seq_cst) & bit) == 0) {
    was_clean = (Or(words_[i], bit) & bit) == 0;
  }
  AtHook(HookPoint::kBitToSummary);
  RaiseSummaries(i);
  return was_clean;
}

bool DirtyBitmap::Test(uint64_t page) const {
  MMU_DCHECK(page < npages_);
  return (Word(page / kWordBits) & BitOf(page)) != 0;
}

void DirtyBitmap::SetAll() {
  for (uint64_t i = 0; i < word_count_; ++i) {
    AtomicWord(words_[i]).store(WordMask(i, 0, npages_),
                                std::memory_order_release);
  }
  for (uint64_t i = 0; i < summary1_count_; ++i) {
    AtomicWord(summary1_[i])
        .store(WordMask(i, 0, word_count_), std::memory_order_release);
  }
  const uint64_t summary2_count = WordsFor(summary1_count_);
  for (uint64_t i = 0; i < summary2_count; ++i) {
    AtomicWord(summary2_[i])
        .store(WordMask(i, 0, summary1_count_), std::memory_order_release);
  }
}

uint64_t DirtyBitmap::CountDirty() const {
  uint64_t count = 0;
  ForEachNonZeroWord(0, word_count_, [&count](uint64_t, uint64_t value) {
    count += CountBits(value);
  });
  return count;
}

void DirtyBitmap::ForEachNonZeroWord(uint64_t first_word, uint64_t end_word,
                                     WordFn fn) const {
  MMU_CHECK(first_word <= end_word && end_word <= word_count_);
  if (first_word == end_word) return;
  const uint64_t first_group = first_word / kWordBits;
  const uint64_t end_group = WordsFor(end_word);
  for (uint64_t s = first_group / kWordBits; s < WordsFor(end_group); ++s) {
    const uint64_t groups =
        AtomicWord(summary2_[s]).load(std::memory_order_acquire) &
        WordMask(s, first_group, end_group);
    for (const uint64_t group_bit : SetBitsOf(groups)) {
      const uint64_t group = s * kWordBits + group_bit;
      const uint64_t dirty_words =
          AtomicWord(summary1_[group]).load(std::memory_order_acquire) &
          WordMask(group, first_word, end_word);
      for (const uint64_t word_bit : SetBitsOf(dirty_words)) {
        const uint64_t i = group * kWordBits + word_bit;
        const uint64_t value = Word(i);
        if (value != 0) fn(i, value);
      }
    }
  }
}

void DirtyBitmap::TakeAll(uint64_t first_word, uint64_t end_word, WordFn fn) {
  MMU_CHECK(first_word <= end_word && end_word <= word_count_);
  if (first_word == end_word) return;
  const uint64_t first_group = first_word / kWordBits;
  const uint64_t end_group = WordsFor(end_word);
  for (uint64_t s = first_group / kWordBits; s < WordsFor(end_group); ++s) {
    const uint64_t groups =
        AtomicWord(summary2_[s]).load(std::memory_order_acquire) &
        WordMask(s, first_group, end_group);
    for (const uint64_t group_bit : SetBitsOf(groups)) {
      const uint64_t group = s * kWordBits + group_bit;
      const uint64_t group_begin = group * kWordBits;
      const bool whole_group =
          first_word <= group_begin &&
          (group_begin + kWordBits <= end_word || end_word == word_count_);
      // Summary 2 of a group that is taken only in part stays set: no reader
      // may overlook the remaining words, even for a moment.
      if (whole_group) AndNot(summary2_[s], BitOf(group));
      const uint64_t mask = WordMask(group, first_word, end_word);
      const uint64_t dirty_words = AndNot(summary1_[group], mask) & mask;
      AtHook(HookPoint::kSummaryToTake);
      for (const uint64_t word_bit : SetBitsOf(dirty_words)) {
        const uint64_t i = group_begin + word_bit;
        const uint64_t seen = Word(i);
        if (seen == 0) continue;
        fn(i, seen);
        AndNot(words_[i], seen);
      }
    }
  }
}

void DirtyBitmap::OrInto(uint64_t first_word, absl::Span<uint64_t> out) const {
  ForEachNonZeroWord(
      first_word, first_word + out.size(),
      [&](uint64_t i, uint64_t value) { out[i - first_word] |= value; });
}

}  // namespace mmu
