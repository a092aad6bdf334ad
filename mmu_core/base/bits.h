// Bitmaps of 64-bit words: bit n of a bitmap is bit n % 64 of word n / 64.
//
// Loops over set bits are written with SetBitsOf and RunsOf:
//
//   for (const uint64_t bit : SetBitsOf(word)) ...      // 0 to 63
//   for (const BitRun run : RunsOf(words)) ...          // [run.first, run.end)
//
// Both compile to the loop over countr_zero that one would write by hand. All
// functions here work on plain words; a bitmap that several threads write to is
// a DirtyBitmap (mmu_core/dirty/dirty_bitmap.h).

#ifndef MMU_CORE_BASE_BITS_H_
#define MMU_CORE_BASE_BITS_H_

#include <bit>
#include <cstdint>
#include <iterator>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mmu {

inline constexpr uint64_t kWordBits = 64;

// The number of words in a bitmap of `bits` bits.
constexpr uint64_t WordsFor(uint64_t bits) {
  return (bits + kWordBits - 1) / kWordBits;
}

// The mask of bitmap bit `n` within its word.
constexpr uint64_t BitOf(uint64_t n) { return uint64_t{1} << (n % kWordBits); }

// The mask of those bits of bitmap word `i` that lie in the bitmap range
// [first, end). REQUIRES: word `i` and the range overlap.
constexpr uint64_t WordMask(uint64_t i, uint64_t first, uint64_t end) {
  const uint64_t base = i * kWordBits;
  uint64_t mask = ~uint64_t{0};
  if (first > base) mask &= ~uint64_t{0} << (first - base);
  if (end < base + kWordBits) mask &= ~(~uint64_t{0} << (end - base));
  return mask;
}

// The number of set bits: of a word, of a bitmap in words, and of a bitmap in
// bytes, which is the form in messages.
constexpr uint64_t CountBits(uint64_t word) {
  return static_cast<uint64_t>(std::popcount(word));
}
constexpr uint64_t CountBits(absl::Span<const uint64_t> words) {
  uint64_t count = 0;
  for (const uint64_t word : words) count += CountBits(word);
  return count;
}
constexpr uint64_t CountBits(absl::string_view bytes) {
  uint64_t count = 0;
  for (const char byte : bytes) {
    count += CountBits(uint64_t{static_cast<unsigned char>(byte)});
  }
  return count;
}

// The numbers of the set bits of a word, in ascending order. A value, for a
// range-based for loop.
class SetBitsOf {
 public:
  class Iterator {
   public:
    constexpr explicit Iterator(uint64_t left) : left_(left) {}
    constexpr uint64_t operator*() const {
      return static_cast<uint64_t>(std::countr_zero(left_));
    }
    constexpr Iterator& operator++() {
      left_ &= left_ - 1;
      return *this;
    }
    friend constexpr bool operator==(Iterator it, std::default_sentinel_t) {
      return it.left_ == 0;
    }

   private:
    uint64_t left_;
  };

  constexpr explicit SetBitsOf(uint64_t word) : word_(word) {}

  constexpr Iterator begin() const { return Iterator(word_); }
  constexpr std::default_sentinel_t end() const { return {}; }

 private:
  uint64_t word_;
};

// The bits [first, end) of a bitmap. A value.
struct BitRun {
  uint64_t first = 0;
  uint64_t end = 0;

  constexpr uint64_t size() const { return end - first; }
  friend constexpr bool operator==(BitRun, BitRun) = default;
};

// Sets the bits of `run`, which may be empty. REQUIRES: `run` lies within
// `words`.
constexpr void SetRun(absl::Span<uint64_t> words, BitRun run) {
  if (run.first >= run.end) return;
  for (uint64_t i = run.first / kWordBits; i < WordsFor(run.end); ++i) {
    words[i] |= WordMask(i, run.first, run.end);
  }
}

// The maximal runs of set bits of a bitmap, in ascending order; a run may cross
// the border of two words. A value, for a range-based for loop; `words` must
// outlive it and not change meanwhile.
class RunsOf {
 public:
  class Iterator {
   public:
    constexpr explicit Iterator(absl::Span<const uint64_t> words)
        : words_(words) {
      ++*this;
    }
    constexpr BitRun operator*() const { return run_; }
    constexpr Iterator& operator++() {
      run_.first = Find(run_.end, 0);
      run_.end = Find(run_.first, ~uint64_t{0});
      return *this;
    }
    friend constexpr bool operator==(const Iterator& it,
                                     std::default_sentinel_t) {
      return it.run_.size() == 0;
    }

   private:
    // Returns the first bit at or after `from` that differs from the bits of
    // `skipped`, which is all zeroes or all ones; the end of the bitmap if no
    // bit differs.
    constexpr uint64_t Find(uint64_t from, uint64_t skipped) const {
      uint64_t mask = ~uint64_t{0} << (from % kWordBits);
      for (uint64_t i = from / kWordBits; i < words_.size(); ++i) {
        const uint64_t found = (words_[i] ^ skipped) & mask;
        if (found != 0) {
          return i * kWordBits + static_cast<uint64_t>(std::countr_zero(found));
        }
        mask = ~uint64_t{0};
      }
      return words_.size() * kWordBits;
    }

    absl::Span<const uint64_t> words_;
    BitRun run_;
  };

  constexpr explicit RunsOf(absl::Span<const uint64_t> words) : words_(words) {}

  constexpr Iterator begin() const { return Iterator(words_); }
  constexpr std::default_sentinel_t end() const { return {}; }

 private:
  absl::Span<const uint64_t> words_;
};

}  // namespace mmu

#endif  // MMU_CORE_BASE_BITS_H_
