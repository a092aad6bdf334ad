// Converts which MMUs are to be aged, and which were.

#ifndef SERVER_CONVERT_AGED_MMUS_CONVERT_H_
#define SERVER_CONVERT_AGED_MMUS_CONVERT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/stats/labels.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud {

// INVALID_ENUM_VALUE of the fields lock_mode and slow_mmus.
absl::StatusOr<mmu::AgeOptions> ToAgeOptions(v1::AgingLockMode lock_mode,
                                             v1::SlowMmus slow_mmus);

// Appends each of a VM's `mmus`, as `reach` has it.
void AddMmus(const std::vector<mmu::MmuKind>& mmus, const mmu::AgeReach& reach,
             google::protobuf::RepeatedPtrField<v1::AgedMmu>* out);

}  // namespace mmud

#endif  // SERVER_CONVERT_AGED_MMUS_CONVERT_H_
