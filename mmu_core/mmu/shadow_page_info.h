// A copy of the properties of a page of tables, for an external observer. It
// does not change while the VM continues.

#ifndef MMU_CORE_MMU_SHADOW_PAGE_INFO_H_
#define MMU_CORE_MMU_SHADOW_PAGE_INFO_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

// An entry of a table.
struct EntryPlace {
  Hpa table;
  int index = 0;

  friend bool operator==(const EntryPlace&, const EntryPlace&) = default;
};

// One page. A value; large, so a list of them is allocated at once.
struct ShadowPageInfo {
  static constexpr int kMaxParents = 16;

  MmuKind owner = MmuKind::kTdp;  // the MMU that the page belongs to
  Hpa table;                      // as in entries that point at it
  Gfn gfn;                        // with role.HasGuestPtes(): the guest's table
  PageRole role;
  int root_count = 0;  // of the TDP MMU: 1 for a root
  bool unsync = false;
  uint32_t unsync_children = 0;
  int write_flood_count = 0;
  uint64_t parent_count = 0;
  std::array<EntryPlace, kMaxParents> parents;  // the first of them
  int present_entries = 0;
  int leafs = 0;  // of the present entries
};

// The filter of a listing; a page must match all of it.
struct ShadowPageFilter {
  // Selects pages for a guest's table at one of these gfns, and direct pages
  // that map one of them. Empty: all.
  GfnRange gfns = {};
  int level = 0;  // 1 to 5; 0: any
  enum class Sync : uint8_t { kAny, kUnsync } sync = Sync::kAny;
  std::optional<MmuKind> owner = std::nullopt;
};

// The position of a listing. Opaque: to be kept and passed back unchanged.
struct ShadowPagePosition {
  static constexpr int kBeforeRoot = 6;

  MmuKind owner = MmuKind::kTdp;
  uint64_t major = 0;       // TDP: id of the root; shadow: chain of the hash
  uint64_t minor = 0;       // gfn; pages of the chain
  int level = kBeforeRoot;  // TDP: of the table

  friend bool operator==(const ShadowPagePosition&,
                         const ShadowPagePosition&) = default;
};

struct ShadowPageListing {
  std::vector<ShadowPageInfo> pages;
  std::optional<ShadowPagePosition> next;  // nullopt: the listing is complete
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_SHADOW_PAGE_INFO_H_
