// Converts between ListPageTables and mmu_core's listing of shadow pages.

#ifndef SERVER_CONVERT_PAGE_TABLE_CONVERT_H_
#define SERVER_CONVERT_PAGE_TABLE_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/stats/labels.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud {

v1::PageTableKind ToProto(mmu::MmuKind kind);
v1::PageTable ToProto(const mmu::ShadowPageInfo& page);

// Errors: UNALIGNED, INVALID_RANGE, INVALID_SIZE, INVALID_ENUM_VALUE.
absl::StatusOr<mmu::ShadowPageFilter> ToShadowPageFilter(
    const v1::ListPageTablesRequest& request);

// The position in the list at which a page begins. INVALID_PAGE_TOKEN.
absl::StatusOr<mmu::ShadowPagePosition> ToShadowPagePosition(
    const std::string& page_token);
std::string MakeShadowPageToken(const mmu::ShadowPagePosition& position);

}  // namespace mmud

#endif  // SERVER_CONVERT_PAGE_TABLE_CONVERT_H_
