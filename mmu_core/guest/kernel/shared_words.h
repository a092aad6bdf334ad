// What CPUs may find in the memory of a process that all of them write to,
// unmap, protect and fork at the same time.
//
// In each page every CPU has one word to which only it writes. The words that a
// CPU writes increase.

#ifndef MMU_CORE_GUEST_KERNEL_SHARED_WORDS_H_
#define MMU_CORE_GUEST_KERNEL_SHARED_WORDS_H_

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace mmu {

// The contents of one process. Each access is announced before it is made, and
// reported after it; what others do in between makes more results right.
//
//   what a read of a word may find   because
//   a word from `low` to `high`      `low` was written before the read began,
//                                    `high` before the read ended
//   0                                nothing was written, or the page was
//                                    unmapped after the write began
//
// The writer itself knows its last write, so for its own word low = high,
// except after a fork, until it accesses the word. And it knows when its page
// has been unmapped since: then the word must be 0.
//
// Thread-safe. The order of these atomics and of the guest's own accesses is
// that of x86, which keeps the order of stores, and of loads.
class SharedWords {
 public:
  SharedWords(int cpus, uint64_t pages);

  // What is known before an access.
  struct Before {
    uint64_t low = 0;
    uint64_t high = 0;
    uint64_t unmaps_at_write = 0;  // that were done before the last write
    uint64_t unmaps_done = 0;
    uint64_t protection = 0;
  };

  Before BeginRead(int writer, uint64_t page) const;
  // CPU `reader` found `word` in the word of `writer`. DATA_LOSS if that is not
  // possible.
  absl::Status EndRead(const Before& before, int reader, int writer,
                       uint64_t page, uint64_t word);

  // CPU `cpu` writes `word`, which is greater than all that it wrote before.
  Before BeginWrite(int cpu, uint64_t page, uint64_t word);
  // The write is done. DATA_LOSS if the page was read-only all the time.
  absl::Status EndWrite(const Before& before, int cpu, uint64_t page,
                        uint64_t word);
  // The page is read-only, so nothing was written.
  void WriteDenied(const Before& before, int cpu, uint64_t page);

  // A CPU that unmaps a page or changes its protection has the page to itself
  // for that. False: another CPU has it.
  bool TryClaim(uint64_t page);
  void Release(uint64_t page);
  // Around an unmap. REQUIRES: the caller has the page.
  void BeginUnmap(uint64_t page);
  void EndUnmap(uint64_t page);
  // After write permission was taken; before it is given back. REQUIRES: the
  // caller has the page.
  void SetReadOnly(uint64_t page);
  void SetWritable(uint64_t page);

  // Around a fork of `parent`: this object, made before the fork as a copy of
  // `parent`, is the child's.
  explicit SharedWords(const SharedWords& parent);
  void EndFork(const SharedWords& parent);
  SharedWords& operator=(const SharedWords&) = delete;

 private:
  struct Page {
    std::atomic<bool> claimed{false};
    std::atomic<uint64_t> unmaps_begun{0};
    std::atomic<uint64_t> unmaps_done{0};
    // Odd: read-only. Each change increments it.
    std::atomic<uint64_t> protection{0};
  };
  struct Word {
    std::atomic<uint64_t> low{0};
    std::atomic<uint64_t> high{0};
    // Unmaps that were done before the last write began, and that had begun
    // when it ended.
    std::atomic<uint64_t> unmaps_done{0};
    std::atomic<uint64_t> unmaps_begun{0};
  };

  Word& WordOf(int cpu, uint64_t page) {
    return words_[page * static_cast<uint64_t>(cpus_) +
                  static_cast<uint64_t>(cpu)];
  }
  const Word& WordOf(int cpu, uint64_t page) const {
    return words_[page * static_cast<uint64_t>(cpus_) +
                  static_cast<uint64_t>(cpu)];
  }

  const int cpus_;
  std::vector<Page> pages_;
  std::vector<Word> words_;  // by page and CPU
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_SHARED_WORDS_H_
