#include "server/convert/page_table_convert.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/stats/labels.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

constexpr char kList[] = "tables";

// The kind that ToString calls `name`; nullopt if there is none.
absl::optional<mmu::MmuKind> MmuKindOf(std::string_view name) {
  for (int i = 0; i < mmu::kMmuKinds; ++i) {
    const auto kind = static_cast<mmu::MmuKind>(i);
    if (name == mmu::ToString(kind)) return kind;
  }
  return absl::nullopt;
}

v1::PageTableRole ToProto(mmu::PageRole role) {
  v1::PageTableRole proto;
  proto.set_level(role.level_number());
  proto.set_has_4_byte_gpte(role.has_4_byte_gpte());
  proto.set_quadrant(role.quadrant());
  proto.set_direct(role.IsDirect());
  proto.set_access(mmu::ToString(role.access()));
  proto.set_invalid(role.IsInvalid());
  proto.set_efer_nx(role.efer_nx());
  proto.set_cr0_wp(role.cr0_wp());
  proto.set_smap_andnot_wp(role.smap_andnot_wp());
  proto.set_ad_disabled(role.ad_disabled());
  proto.set_guest_mode(role.guest_mode());
  proto.set_passthrough(role.IsPassthrough());
  proto.set_cr4_smep(role.cr4_smep());
  return proto;
}

}  // namespace

v1::PageTableKind ToProto(mmu::MmuKind kind) {
  switch (kind) {
    case mmu::MmuKind::kTdp:
      return v1::PAGE_TABLE_KIND_TDP;
    case mmu::MmuKind::kShadow:
      return v1::PAGE_TABLE_KIND_SHADOW;
    case mmu::MmuKind::kStage2:
      return v1::PAGE_TABLE_KIND_STAGE2;
  }
  return v1::PAGE_TABLE_KIND_UNSPECIFIED;
}

v1::PageTable ToProto(const mmu::ShadowPageInfo& page) {
  v1::PageTable proto;
  proto.set_address_bytes(static_cast<int64_t>(page.table.value()));
  proto.set_kind(ToProto(page.owner));
  proto.set_gpa_bytes(static_cast<int64_t>(mmu::ToGpa(page.gfn).value()));
  *proto.mutable_role() = ToProto(page.role);
  proto.set_root_count(page.root_count);
  proto.set_unsync(page.unsync);
  proto.set_unsync_child_count(static_cast<int32_t>(page.unsync_children));
  proto.set_write_flood_count(page.write_flood_count);
  proto.set_parent_count(static_cast<int64_t>(page.parent_count));
  const auto named = std::min<uint64_t>(page.parent_count, page.parents.size());
  for (uint64_t i = 0; i < named; ++i) {
    v1::PageTableEntry* parent = proto.add_parents();
    parent->set_address_bytes(
        static_cast<int64_t>(page.parents[i].table.value()));
    parent->set_index(page.parents[i].index);
  }
  proto.set_present_entry_count(page.present_entries);
  proto.set_leaf_entry_count(page.leafs);
  return proto;
}

absl::StatusOr<mmu::ShadowPageFilter> ToShadowPageFilter(
    const v1::ListPageTablesRequest& request) {
  mmu::ShadowPageFilter filter;
  if (request.has_extent()) {
    const absl::StatusOr<mmu::GfnRange> range =
        ToRange(request.extent(), "extent");
    if (!range.ok()) return range.status();
    filter.gfns = *range;
  }
  if (request.level() < 0 || request.level() > 5) {
    return WrongValue(mmu::Reason::kInvalidRange, "level", request.level(),
                      "from 1 to 5, or 0 for all");
  }
  filter.level = request.level();
  if (request.unsync_only()) {
    filter.sync = mmu::ShadowPageFilter::Sync::kUnsync;
  }
  switch (request.kind()) {
    case v1::PAGE_TABLE_KIND_UNSPECIFIED:
      break;
    case v1::PAGE_TABLE_KIND_TDP:
      filter.owner = mmu::MmuKind::kTdp;
      break;
    case v1::PAGE_TABLE_KIND_SHADOW:
      filter.owner = mmu::MmuKind::kShadow;
      break;
    case v1::PAGE_TABLE_KIND_STAGE2:
      filter.owner = mmu::MmuKind::kStage2;
      break;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "kind",
                        static_cast<int>(request.kind()),
                        "TDP, SHADOW or STAGE2");
  }
  return filter;
}

absl::StatusOr<mmu::ShadowPagePosition> ToShadowPagePosition(
    const std::string& page_token) {
  const absl::StatusOr<std::string> key = ParsePageToken(kList, page_token);
  if (!key.ok()) return key.status();
  mmu::ShadowPagePosition position;
  if (key->empty()) return position;
  const std::vector<std::string> parts = absl::StrSplit(*key, '.');
  const absl::optional<mmu::MmuKind> owner = MmuKindOf(parts[0]);
  if (parts.size() != 4 || !owner.has_value() ||
      !absl::SimpleAtoi(parts[1], &position.major) ||
      !absl::SimpleAtoi(parts[2], &position.minor) ||
      !absl::SimpleAtoi(parts[3], &position.level)) {
    return ParsePageToken(kList, page_token + "!").status();
  }
  position.owner = *owner;
  return position;
}

std::string MakeShadowPageToken(const mmu::ShadowPagePosition& position) {
  return MakePageToken(
      kList,
      absl::StrCat(std::string(mmu::ToString(position.owner)), ".",
                   position.major, ".", position.minor, ".", position.level));
}

}  // namespace mmud
