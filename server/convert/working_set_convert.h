// Converts between mmud.v1's messages about generations and working sets and
// mmu_core's values.

#ifndef SERVER_CONVERT_WORKING_SET_CONVERT_H_
#define SERVER_CONVERT_WORKING_SET_CONVERT_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set_snapshot.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/control/generation_job.h"

namespace mmud {

// INVALID_ENUM_VALUE.
absl::StatusOr<mmu::GenerationOptions> ToGenerationOptions(
    const v1::CreateGenerationRequest& request);
// 1 to 100. INVALID_THROTTLE of the field cpu_percent.
absl::StatusOr<int> ToCpuPercent(int32_t percent);
// INVALID_ENUM_VALUE of the field `scope`.
absl::StatusOr<mmu::ScanScope> ToScope(v1::GenerationScope scope);
v1::GenerationScope ToProto(mmu::ScanScope scope);

// `mmus` are those of the generation's VM; `now_nanos` is a monotonic time.
v1::Generation ToProto(const mmu::Generation& generation,
                       const std::vector<mmu::MmuKind>& mmus,
                       int64_t now_nanos);

// Everything but the generation and the times of the operation.
v1::GenerationMetadata ToMetadata(const GenerationProgress& progress);

// What GetWorkingSet asks for. A value.
struct WorkingSetQuery {
  std::vector<int64_t> windows_nanos;
  absl::optional<mmu::Level> heat_map_unit;
};
// INVALID_WINDOW, INVALID_PAGE_SIZE.
absl::StatusOr<WorkingSetQuery> ToWorkingSetQuery(
    const v1::GetWorkingSetRequest& request);
// Everything but the VM's names and the heat maps. `mmus` are the VM's.
v1::WorkingSet ToProto(const mmu::WorkingSetSnapshot& snapshot,
                       const std::vector<mmu::MmuKind>& mmus,
                       int64_t now_nanos);
// TOO_MANY_PAGES, and then nothing is added.
absl::Status AddHeatMaps(const mmu::GenerationView& view, mmu::Level unit,
                         v1::WorkingSet* working_set);

// INVALID_ENUM_VALUE, INVALID_PAGE_SIZE, INVALID_PAGE_TOKEN.
absl::StatusOr<mmu::HeatQuery> ToHeatQuery(
    const v1::ListHotRangesRequest& request);
v1::ListHotRangesResponse ToResponse(const mmu::GenerationView& view,
                                     const mmu::HeatList& list);

}  // namespace mmud

#endif  // SERVER_CONVERT_WORKING_SET_CONVERT_H_
