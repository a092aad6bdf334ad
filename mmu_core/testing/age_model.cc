#include "mmu_core/testing/age_model.h"

#include <algorithm>

#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"

namespace mmu::testing {

std::ostream& operator<<(std::ostream& os, const AgeModel::Answer& answer) {
  os << answer.young_page_count << " young, " << answer.old_page_count
     << " old; young:";
  bool before = false;
  for (uint64_t bit = 0; bit <= answer.young.size() * kWordBits; ++bit) {
    const bool young = bit < answer.young.size() * kWordBits &&
                       (answer.young[bit / kWordBits] & BitOf(bit)) != 0;
    if (young && !before) os << " [" << bit;
    if (!young && before) os << ", " << bit << ")";
    before = young;
  }
  return os;
}

AgeModel::AgeModel(uint64_t pages, size_t arrays)
    : arrays_(arrays, std::vector<Page>(pages)) {}

GfnRange AgeModel::LeafAt(size_t array, Gfn gfn) const {
  const Page& page = arrays_[array][gfn.value()];
  return page.leaf_pages == 0 ? GfnRange() : LeafOf(page);
}

std::vector<GfnRange> AgeModel::Leafs(size_t array) const {
  std::vector<GfnRange> leafs;
  for (Gfn gfn; gfn.value() < arrays_[array].size();) {
    const GfnRange leaf = LeafAt(array, gfn);
    if (leaf.empty()) {
      gfn += 1;
      continue;
    }
    leafs.push_back(leaf);
    gfn = leaf.end;
  }
  return leafs;
}

void AgeModel::SetLeafs(size_t array, GfnRange range,
                        const std::vector<GfnRange>& leafs, NewLeaf new_leaf) {
  std::vector<Page>& pages = arrays_[array];
  std::vector<Page> now(range.pages());
  for (const GfnRange leaf : leafs) {
    MMU_CHECK(range.Contains(leaf));
    Page page;
    page.leaf_first = static_cast<uint32_t>(leaf.start.value());
    page.leaf_pages = static_cast<uint32_t>(leaf.pages());
    const bool is_new = LeafAt(array, leaf.start) != leaf;
    page.young = is_new && new_leaf == NewLeaf::kIsYoung;
    for (Gfn gfn = leaf.start; gfn < leaf.end; gfn += 1) {
      if (is_new && new_leaf == NewLeaf::kIsOld) break;
      const Page& before = pages[gfn.value()];
      page.young |= before.young;
      page.made_old_by = std::max(page.made_old_by, before.made_old_by);
    }
    std::fill_n(now.begin() + static_cast<ptrdiff_t>(leaf.start - range.start),
                leaf.pages(), page);
  }
  std::copy(now.begin(), now.end(),
            pages.begin() + static_cast<ptrdiff_t>(range.start.value()));
}

void AgeModel::Unmap(size_t array, GfnRange range) {
  for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
    const GfnRange leaf = LeafAt(array, gfn);
    for (Gfn of = leaf.start; of < leaf.end; of += 1) {
      arrays_[array][of.value()] = Page();
    }
  }
}

void AgeModel::SetYoung(size_t array, Gfn gfn) {
  const GfnRange leaf = LeafAt(array, gfn);
  MMU_CHECK(!leaf.empty());
  for (Gfn of = leaf.start; of < leaf.end; of += 1) {
    arrays_[array][of.value()].young = true;
  }
}

void AgeModel::SetAllOld() {
  for (std::vector<Page>& pages : arrays_) {
    for (Page& page : pages) page.young = false;
  }
}

std::vector<GfnRange> AgeModel::PiecesOf(const std::vector<GfnRange>& ranges) {
  Gfn end;
  for (const GfnRange range : ranges) end = std::max(end, range.end);
  std::vector<uint8_t> asked(end.value());
  for (const GfnRange range : ranges) {
    for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
      asked[gfn.value()] = 1;
    }
  }
  std::vector<GfnRange> pieces;
  for (Gfn gfn; gfn < end; gfn += 1) {
    if (asked[gfn.value()] == 0) continue;
    if (pieces.empty() || pieces.back().end != gfn ||
        IsAligned(gfn, Level::k1G)) {
      pieces.push_back(GfnRange::Of(gfn, 0));
    }
    pieces.back().end = gfn + 1;
  }
  return pieces;
}

AgeModel::Answer AgeModel::Age(GfnRange pages, AgeMode mode,
                               const std::vector<size_t>& arrays) {
  Answer answer;
  answer.young.resize(WordsFor(pages.pages()));
  for (Gfn gfn = pages.start; gfn < pages.end; gfn += 1) {
    bool mapped = false;
    bool young = false;
    for (const size_t array : arrays) {
      const Page& page = arrays_[array][gfn.value()];
      if (page.leaf_pages == 0) continue;
      mapped = true;
      young |= page.young || page.made_old_by == sweep_;
    }
    answer.young_page_count += young ? 1 : 0;
    answer.old_page_count += mapped && !young ? 1 : 0;
    const uint64_t bit = gfn - pages.start;
    if (young) answer.young[bit / kWordBits] |= BitOf(bit);
  }
  if (mode == AgeMode::kTest) return answer;
  for (const size_t array : arrays) {
    for (Gfn gfn = pages.start; gfn < pages.end; gfn += 1) {
      if (!arrays_[array][gfn.value()].young) continue;
      const GfnRange leaf = LeafAt(array, gfn);
      for (Gfn of = leaf.start; of < leaf.end; of += 1) {
        arrays_[array][of.value()].young = false;
        arrays_[array][of.value()].made_old_by = sweep_;
      }
    }
  }
  return answer;
}

}  // namespace mmu::testing
