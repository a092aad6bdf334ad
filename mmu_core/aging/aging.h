// Testing and clearing the Accessed bits of a range, to find young memory.

#ifndef MMU_CORE_AGING_AGING_H_
#define MMU_CORE_AGING_AGING_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

enum class AgeMode : uint8_t { kTest, kTestAndClear };

// Whether only the MMUs that age fast are asked: those that wait for no other
// thread (AGE-30). The other MMUs' pages then look old, or not mapped.
enum class FastOnly : uint8_t { kNo, kYes };

// What a fast-only request does about an MMU that does not age fast.
enum class SlowMmus : uint8_t {
  kSkip,    // leaves it out; AgeReach says so
  kRefuse,  // changes nothing
};

// Where an ageing may stop.
enum class AgeUntil : uint8_t {
  kEnd,
  // A test for whether any page is young need not go on after the first one
  // (AGE-12). Of the result, AgeReach::was_fast and whether a page is young
  // hold.
  kFirstYoung,
};

// What an ageing reads of the tables of small pages. It concerns the TDP MMU of
// a processor with Accessed bits, if the MMU is asked alone; any other ageing
// reads all leafs. The counts of pages are exact either way.
enum class AgeScan : uint8_t {
  // A table is left out if the entry that points at it was not accessed since
  // the table was last read, and no page of it was mapped or unmapped since:
  // its pages are old. So the cost follows the memory that was used. A walk
  // that the processor begins in its cache of table pointers is not noticed
  // (RACE-55); so such a page may look old until the next flush, as pages do
  // whose translation is cached (AGE-16).
  kWalkedTables,
  kAllLeafs,
};

// A value.
struct AgeOptions {
  FastOnly fast_only = FastOnly::kNo;
  SlowMmus slow = SlowMmus::kSkip;
  AgeUntil until = AgeUntil::kEnd;  // kTestAndClear always goes to the end
  AgeScan scan = AgeScan::kWalkedTables;
};

// The MMUs that an ageing asked. A value.
struct AgeReach {
  struct Mmu {
    bool asked = false;
    bool skipped = false;               // it is in use, but does not age fast
    AgingLock lock = AgingLock::kNone;  // that it used, if it was asked
  };

  Mmu& Of(MmuKind kind) {
    return mmus[std::min(static_cast<size_t>(kind), mmus.size() - 1)];
  }
  // Adds what a further part of the same ageing reached.
  void Add(const AgeReach& other);
  bool skipped_any() const;
  // The lock of those used for which other threads wait the longest.
  AgingLock lock() const;

  // By MmuKind. The last is for kinds that only tests have.
  std::array<Mmu, kMmuKinds + 1> mmus{};
  // An MMU that ages fast found a young page. So a caller may look around that
  // page by fast-only requests (AGE-32, AGE-33).
  bool was_fast = false;
};

// A value. A page is young if a leaf SPTE that maps it has its Accessed bit
// set. A huge leaf is one unit: all its pages are young, or none (AGE-17).
// Unmapped pages are neither young nor old.
struct AgeResult {
  // An empty result for the pages of `range`.
  static AgeResult For(GfnRange range);

  uint64_t young_page_count = 0;  // 4 KiB pages
  uint64_t old_page_count = 0;
  // The first page of the requested range.
  Gfn start;
  // One bit per page of the requested range, bit 0 its first page: 1 is young.
  std::vector<uint64_t> young;
  // The same for mapped pages. Empty unless several leafs may map the same
  // page, or an earlier range made pages young: then the MMUs fill in the
  // bitmaps, and CountPages computes the counts from them.
  std::vector<uint64_t> mapped;
  AgeReach reach;
  // Pages from the range's end up to this gfn are young, and were aged,
  // together with the range: a young huge leaf extends past the range's end
  // (AGE-17). Gfn 0 if there are none.
  Gfn young_until;
};

// Computes the counts from the bitmaps: a page is young if any MMU found it
// young, old if it is mapped and no MMU did (AGE-11). REQUIRES: both bitmaps
// are present.
void CountPages(AgeResult& result);

// Whether the result needs a bitmap of mapped pages.
enum class KeepMapped : uint8_t { kNo, kYes };

// Makes those of the first `pages` pages young that are mapped, and computes
// the counts. REQUIRES: both bitmaps are present.
void MarkYoung(AgeResult& result, uint64_t pages);

}  // namespace mmu

#endif  // MMU_CORE_AGING_AGING_H_
