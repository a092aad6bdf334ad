// The number of present leafs of a table, as far as an ageing has counted them.
//
// An ageing that reads a table leaves their number here. The next one takes it
// instead of reading the table, if no walk has passed the entry above
// meanwhile. A thread that makes a leaf come or go makes the number unknown
// *after* its change:
//
//   ageing                              zap, fault
//   A1 exchanges the value for a token  F1 changes a leaf
//   A2 reads the leafs                  F2 looks at the value: if it is not
//   A3 compare-exchanges the token for     unknown, exchanges it for unknown
//      their number
//
// If A2 has not seen F1, F2 comes after A1. It then finds the token, and A3
// fails, or it finds the number. So a number that stays is that of the leafs.
// F2 exchanges nothing if the value is unknown: faults of many vCPUs in a new
// table then do not pass its descriptor around.
//
// Memory orders. A1 and F1 are atomic read-modify-writes, and A2 and F2 are
// loads that must not come before them. On x86 no load does. A2 is an acquire
// load and F1 acquires and releases, which is what the compiler needs to keep
// them in order. A3 releases and KnownOr acquires, so that a thread that takes
// the number has seen what the ageing saw.

#ifndef MMU_CORE_PAGING_KNOWN_LEAF_COUNT_H_
#define MMU_CORE_PAGING_KNOWN_LEAF_COUNT_H_

#include <atomic>
#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"

namespace mmu {

// Thread-safe.
class KnownLeafCount {
 public:
  // What tells the countings of a table apart. A value.
  enum class Token : uint32_t {};

  // Makes the number unknown. REQUIRES: no other thread sees the table.
  void Reset() { value_.store(kUnknown, std::memory_order_relaxed); }

  // The number; `otherwise` if it is unknown, or being counted. Exact, except
  // for leafs whose thread is between F1 and F2.
  int KnownOr(int otherwise) const {
    const uint32_t value = value_.load(std::memory_order_acquire);
    return value <= kEntriesPerTable ? static_cast<int>(value) : otherwise;
  }

  // F2. REQUIRES: the change of the leaf was an atomic read-modify-write.
  void Forget() {
    if (value_.load(std::memory_order_seq_cst) == kUnknown) return;
    value_.exchange(kUnknown, std::memory_order_seq_cst);
  }

  // A1 and A3. `token` comes from LeafCountTokens.
  void BeginCount(Token token) {
    value_.exchange(static_cast<uint32_t>(token), std::memory_order_seq_cst);
  }
  // Another thread's number, token or unknown stays.
  void EndCount(Token token, int leafs) {
    MMU_DCHECK(0 <= leafs && leafs <= kEntriesPerTable);
    uint32_t expected = static_cast<uint32_t>(token);
    value_.compare_exchange_strong(expected, static_cast<uint32_t>(leafs),
                                   std::memory_order_acq_rel,
                                   std::memory_order_relaxed);
  }

  // Tokens lie between the numbers and unknown.
  static constexpr uint32_t kUnknown = ~uint32_t{0};
  static constexpr uint32_t kFirstToken = kEntriesPerTable + 1;

 private:
  std::atomic<uint32_t> value_{kUnknown};
};

// Gives out tokens. Two of them are equal only if about 2^32 others were given
// out in between. That is harmless unless the first is still in use: its thread
// would have to stand between A1 and A3, in an RCU read section, while four
// billion ageings begin, which takes them more than an hour. Thread-safe.
class LeafCountTokens {
 public:
  explicit LeafCountTokens(uint64_t given = 0) : given_(given) {}

  KnownLeafCount::Token Next() {
    constexpr uint64_t kTokens =
        KnownLeafCount::kUnknown - KnownLeafCount::kFirstToken;
    const uint64_t n = given_.fetch_add(1, std::memory_order_relaxed);
    return static_cast<KnownLeafCount::Token>(KnownLeafCount::kFirstToken +
                                              n % kTokens);
  }

 private:
  std::atomic<uint64_t> given_;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_KNOWN_LEAF_COUNT_H_
