// What ageing has to answer: flat arrays with the state of each page of the
// guest, which follow a test's own accesses.
//
// There is one array per MMU in which no page has two leafs. The shadow MMU may
// map a page by leafs of several sizes: it has one array per size.

#ifndef MMU_CORE_TESTING_AGE_MODEL_H_
#define MMU_CORE_TESTING_AGE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <vector>

#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu::testing {

// Thread-compatible.
class AgeModel {
 public:
  // A guest whose gfns are less than `pages`, none of which is mapped.
  AgeModel(uint64_t pages, size_t arrays);

  // --- Mappings. ---

  // The leaf that maps `gfn` in an array; an empty range if none does.
  GfnRange LeafAt(size_t array, Gfn gfn) const;
  // All leafs of an array, ascending.
  std::vector<GfnRange> Leafs(size_t array) const;
  // Whether a leaf that was not there before is old, or young if one of those
  // was whose place it takes, or always young.
  enum class NewLeaf : uint8_t { kIsOld, kInherits, kIsYoung };
  // Within `range`, the array has `leafs` from now on. REQUIRES: all leafs that
  // overlap `range` lie in it.
  void SetLeafs(size_t array, GfnRange range,
                const std::vector<GfnRange>& leafs, NewLeaf new_leaf);
  // The leafs that map a page of `range` are gone.
  void Unmap(size_t array, GfnRange range);

  // --- Accessed bits. ---

  // The leaf that maps `gfn` was accessed. REQUIRES: there is one.
  void SetYoung(size_t array, Gfn gfn);
  bool IsYoung(size_t array, Gfn gfn) const {
    return arrays_[array][gfn.value()].young;
  }
  // As an ageing whose answer nobody looks at.
  void SetAllOld();

  // --- Sweeps. ---

  struct Answer {
    std::vector<uint64_t> young;  // one bit per page
    uint64_t young_page_count = 0;
    uint64_t old_page_count = 0;

    friend bool operator==(const Answer&, const Answer&) = default;
    friend std::ostream& operator<<(std::ostream& os, const Answer& answer);
  };

  // The pages of all ranges, each once, ascending, cut at each GiB.
  static std::vector<GfnRange> PiecesOf(const std::vector<GfnRange>& ranges);

  void BeginSweep() { ++sweep_; }
  // The next piece of the sweep, which asks the MMUs of these arrays. A page
  // that this sweep has made old counts as young, as it would if the sweep only
  // tested.
  Answer Age(GfnRange pages, AgeMode mode, const std::vector<size_t>& arrays);

 private:
  // Of one page in one array.
  struct Page {
    uint32_t leaf_first = 0;
    uint32_t leaf_pages = 0;   // 0: not mapped
    uint32_t made_old_by = 0;  // the last sweep that found it young
    bool young = false;
  };
  GfnRange LeafOf(const Page& page) const {
    return GfnRange::Of(Gfn(page.leaf_first), page.leaf_pages);
  }

  std::vector<std::vector<Page>> arrays_;  // each by gfn
  uint32_t sweep_ = 0;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_AGE_MODEL_H_
