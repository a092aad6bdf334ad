#include "server/control/workload_source.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest/trace_replay.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/control/managed_vm.h"
#include "server/control/slot_ranges.h"
#include "trace/trace_reader.h"

namespace mmud {
namespace {

// The memory that a program may use. GPA_OUT_OF_RANGE.
absl::StatusOr<mmu::GpaSpace> SpaceOf(
    const absl::optional<mmu::GfnRange>& extent, const ManagedVm& vm) {
  mmu::GpaSpace all = vm.vm().GuestSpace();
  if (!extent.has_value()) return all;
  std::vector<mmu::GfnRange> parts;
  uint64_t pages = 0;
  for (const mmu::GfnRange& range : all.ranges()) {
    const mmu::GfnRange part = range.Intersect(*extent);
    if (part.empty()) continue;
    pages += part.pages();
    parts.push_back(part);
  }
  if (pages != extent->pages()) {
    return CheckInsideSlots(*extent, {}, "extent");
  }
  return mmu::GpaSpace::Create(std::move(parts));
}

int64_t Total(uint64_t access_count, uint32_t vcpu_count) {
  int64_t total = 0;
  if (__builtin_mul_overflow(access_count, vcpu_count, &total)) return 0;
  return total;
}

absl::StatusOr<WorkloadSources> PatternSources(const mmu::PatternSpec& spec,
                                               const mmu::GpaSpace& space,
                                               uint32_t vcpu_count) {
  if (absl::Status status = mmu::Validate(spec, space.size_bytes(), vcpu_count);
      !status.ok()) {
    return InvalidField(mmu::Reason::kInvalidPattern, "pattern",
                        status.message());
  }
  WorkloadSources made;
  for (uint32_t i = 0; i < vcpu_count; ++i) {
    made.sources.push_back(mmu::MakePattern(spec, space, i, vcpu_count));
  }
  made.total_access_count = Total(spec.access_count, vcpu_count);
  return made;
}

absl::Status TraceNotFound(absl::string_view name, absl::string_view why) {
  return WithResource(
      ApiError(absl::StatusCode::kNotFound, mmu::Reason::kTraceNotFound,
               absl::StrCat("there is no trace ", Quote(name), ": ", why)),
      "mmud.v1.Trace", name);
}

// Turns an error about a trace file's contents into TRACE_CORRUPT. An error
// with a reason keeps it: the host may be short of a resource, which is not the
// file's fault.
absl::Status BadTrace(const absl::Status& status) {
  if (mmu::DetailOf(status).reason != mmu::Reason::kNone) return status;
  return ApiError(absl::StatusCode::kDataLoss, mmu::Reason::kTraceCorrupt,
                  status.message());
}

// Whether a name stays within the trace directory.
bool IsRelativePath(absl::string_view name) {
  if (name.empty() || name[0] == '/' || absl::StrContains(name, '\0')) {
    return false;
  }
  for (absl::string_view part : absl::StrSplit(name, '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

absl::StatusOr<std::unique_ptr<trace::TraceReader>> OpenTrace(
    const std::string& trace_dir, const std::string& name) {
  if (trace_dir.empty()) {
    return TraceNotFound(name, "the daemon was started without --trace_dir");
  }
  if (!IsRelativePath(name)) {
    return TraceNotFound(name,
                         "the name must be a path below the trace directory, "
                         "without '..'");
  }
  absl::StatusOr<std::unique_ptr<trace::TraceReader>> reader =
      trace::TraceReader::Open(absl::StrCat(trace_dir, "/", name));
  if (reader.ok()) return reader;
  if (absl::IsNotFound(reader.status())) {
    return TraceNotFound(name, reader.status().message());
  }
  return BadTrace(reader.status());
}

absl::StatusOr<WorkloadSources> TraceSources(const TraceProgram& program,
                                             const mmu::GpaSpace& space,
                                             uint32_t vcpu_count,
                                             const std::string& trace_dir) {
  WorkloadSources made;
  for (uint32_t i = 0; i < vcpu_count; ++i) {
    absl::StatusOr<std::unique_ptr<trace::TraceReader>> reader =
        OpenTrace(trace_dir, program.trace_name);
    if (!reader.ok()) return reader.status();
    if (i == 0) {
      // All readers read the same file: one check is enough.
      if (absl::Status status = (*reader)->Verify(); !status.ok()) {
        return BadTrace(status);
      }
      // Accesses that cross a page count as two, so the total of a whole trace
      // is not known in advance; that of a limited run is.
      made.total_access_count = Total(program.options.access_count, vcpu_count);
    }
    made.sources.push_back(std::make_unique<mmu::TraceReplaySource>(
        *std::move(reader), space.Share(i, vcpu_count), program.options));
  }
  return made;
}

}  // namespace

absl::StatusOr<WorkloadSources> MakeSources(const WorkloadProgram& program,
                                            uint32_t vcpu_count,
                                            const ManagedVm& vm,
                                            const std::string& trace_dir) {
  const absl::StatusOr<mmu::GpaSpace> space = SpaceOf(program.extent, vm);
  if (!space.ok()) return space.status();
  if (const auto* trace = std::get_if<TraceProgram>(&program.program)) {
    return TraceSources(*trace, *space, vcpu_count, trace_dir);
  }
  return PatternSources(std::get<mmu::PatternSpec>(program.program), *space,
                        vcpu_count);
}

}  // namespace mmud
