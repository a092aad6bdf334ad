// The filter of ListOperations.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/longrunning/operations.pb.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/convert/operation_filter.h"
#include "tests/fuzz/target.h"

namespace mmud::fuzz {
namespace {

google::longrunning::Operation MakeOperation(bool done) {
  google::longrunning::Operation operation;
  operation.set_name("operations/3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b");
  operation.set_done(done);
  v1::StartDirtyLogMetadata metadata;
  metadata.set_vm("vms/alpha");
  operation.mutable_metadata()->PackFrom(metadata);
  return operation;
}

void Run(std::string_view input) {
  const absl::string_view text(input.data(), input.size());
  const absl::StatusOr<OperationFilter> filter = OperationFilter::Parse(text);
  if (!filter.ok()) {
    const mmu::ErrorDetail detail = mmu::DetailOf(filter.status());
    FUZZ_CHECK(absl::IsInvalidArgument(filter.status()) &&
                   detail.reason == mmu::Reason::kInvalidFilter &&
                   detail.field == "filter",
               filter.status());
    return;
  }
  const google::longrunning::Operation operations[] = {
      {}, MakeOperation(false), MakeOperation(true)};
  // A filter and itself select what it selects alone.
  const bool blank = text.find_first_not_of(" \t\r\n\f\v") == text.npos;
  const absl::StatusOr<OperationFilter> twice = OperationFilter::Parse(
      blank ? std::string(input)
            : std::string(input) + " AND " + std::string(input));
  FUZZ_CHECK(twice.ok(), twice.status());
  for (const google::longrunning::Operation& operation : operations) {
    FUZZ_CHECK(filter->Matches(operation) == twice->Matches(operation), text);
  }
}

std::vector<Seed> Seeds() {
  return {{"vm", "vm = \"vms/alpha\" AND method = SplitHugePages"},
          {"done", "done = false"},
          {"times",
           "start_time >= \"2026-11-21T08:00:00Z\" AND end_time < "
           "\"2026-11-21T09:00:00.5Z\""},
          {"uid", "vm_uid != 3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b"},
          {"empty", " "}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds}; }

}  // namespace mmud::fuzz
