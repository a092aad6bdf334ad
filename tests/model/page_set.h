// A set of page numbers below a fixed limit, as a bitmap.

#ifndef TESTS_MODEL_PAGE_SET_H_
#define TESTS_MODEL_PAGE_SET_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace mmu::testing {

// Two sets that are combined or compared have the same limit.
// Thread-compatible.
class PageSet {
 public:
  explicit PageSet(uint64_t limit) : limit_(limit), words_((limit + 63) / 64) {}
  // The pages whose bit is set in `words`, which has one bit per page.
  PageSet(uint64_t limit, absl::Span<const uint64_t> words)
      : limit_(limit), words_(words.begin(), words.end()) {}

  // REQUIRES, here and below: page is below the limit.
  void Insert(uint64_t page) { words_[page / 64] |= Bit(page); }
  void Erase(uint64_t page) { words_[page / 64] &= ~Bit(page); }
  bool Contains(uint64_t page) const {
    return (words_[page / 64] & Bit(page)) != 0;
  }
  void InsertAll() {
    for (uint64_t page = 0; page < limit_; ++page) Insert(page);
  }
  void Clear() { std::fill(words_.begin(), words_.end(), 0); }
  void Merge(const PageSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }

  bool Empty() const {
    return std::all_of(words_.begin(), words_.end(),
                       [](uint64_t word) { return word == 0; });
  }
  uint64_t Count() const {
    uint64_t count = 0;
    for (const uint64_t word : words_) {
      count += static_cast<uint64_t>(std::popcount(word));
    }
    return count;
  }
  // The smallest page that is not in `other`; the limit if there is none.
  uint64_t FirstNotIn(const PageSet& other) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (const uint64_t word = words_[i] & ~other.words_[i]; word != 0) {
        return i * 64 + static_cast<uint64_t>(std::countr_zero(word));
      }
    }
    return limit_;
  }
  // Calls fn(page) for each page, in order.
  template <typename Fn>
  void ForEach(Fn fn) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t word = words_[i]; word != 0; word &= word - 1) {
        fn(i * 64 + static_cast<uint64_t>(std::countr_zero(word)));
      }
    }
  }
  uint64_t limit() const { return limit_; }

 private:
  static constexpr uint64_t Bit(uint64_t page) {
    return uint64_t{1} << (page % 64);
  }

  uint64_t limit_;
  std::vector<uint64_t> words_;
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_PAGE_SET_H_
