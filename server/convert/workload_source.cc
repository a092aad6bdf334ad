#include "server/convert/workload_source.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/first_touch_map.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest/trace_replay.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/common.pb.h"
#include "server/base/errors.h"
#include "server/control/slot_ranges.h"
#include "server/convert/convert.h"
#include "trace/trace_reader.h"

namespace mmud {
namespace {

absl::Status BadPattern(absl::string_view field, absl::string_view message) {
  return InvalidField(mmu::Reason::kInvalidPattern, field, message);
}

// The memory that a program may use: `extent`, or all memory without one.
absl::StatusOr<mmu::GpaSpace> SpaceOf(bool has_extent, const v1::Extent& extent,
                                      const ManagedVm& vm,
                                      absl::string_view field) {
  mmu::GpaSpace all = vm.vm().GuestSpace();
  if (!has_extent) return all;
  absl::StatusOr<mmu::GfnRange> wanted = ToRange(extent, field);
  if (!wanted.ok()) return wanted.status();
  std::vector<mmu::GfnRange> parts;
  uint64_t pages = 0;
  for (const mmu::GfnRange& range : all.ranges()) {
    const mmu::GfnRange part = range.Intersect(*wanted);
    if (part.empty()) continue;
    pages += part.pages();
    parts.push_back(part);
  }
  if (pages != wanted->pages()) {
    return CheckInsideSlots(*wanted, {}, field);
  }
  return mmu::GpaSpace::Create(std::move(parts));
}

int64_t Total(int64_t access_count, uint32_t vcpu_count) {
  int64_t total = 0;
  if (__builtin_mul_overflow(access_count, int64_t{vcpu_count}, &total)) {
    return 0;
  }
  return total;
}

absl::StatusOr<mmu::PatternSpec> ToSpec(const lab::v1::AccessPattern& pattern) {
  mmu::PatternSpec spec;
  spec.write_fraction = pattern.write_fraction();
  spec.exec_fraction = pattern.exec_fraction();
  switch (pattern.kind_case()) {
    case lab::v1::AccessPattern::kSequential:
      spec.kind = mmu::PatternSpec::Kind::kSequential;
      if (pattern.sequential().stride_bytes() < 0) {
        return WrongValue(mmu::Reason::kInvalidPattern,
                          "workload.pattern.sequential.stride_bytes",
                          pattern.sequential().stride_bytes(), "0 or more");
      }
      if (pattern.sequential().stride_bytes() != 0) {
        spec.stride_bytes =
            static_cast<uint64_t>(pattern.sequential().stride_bytes());
      }
      return spec;
    case lab::v1::AccessPattern::kUniform:
      spec.kind = mmu::PatternSpec::Kind::kUniform;
      return spec;
    case lab::v1::AccessPattern::kZipf:
      spec.kind = mmu::PatternSpec::Kind::kZipf;
      if (pattern.zipf().exponent() != 0) {
        spec.zipf_exponent = pattern.zipf().exponent();
      }
      return spec;
    case lab::v1::AccessPattern::kHotCold: {
      const lab::v1::HotColdPattern& hot = pattern.hot_cold();
      spec.kind = mmu::PatternSpec::Kind::kHotCold;
      if (hot.hot_fraction() != 0) spec.hot_fraction = hot.hot_fraction();
      if (hot.hot_access_fraction() != 0) {
        spec.hot_access_fraction = hot.hot_access_fraction();
      }
      if (hot.drift_pages_per_million_accesses() < 0) {
        return WrongValue(
            mmu::Reason::kInvalidPattern,
            "workload.pattern.hot_cold.drift_pages_per_million_accesses",
            hot.drift_pages_per_million_accesses(), "0 or more");
      }
      spec.drift_pages_per_million_accesses =
          static_cast<uint64_t>(hot.drift_pages_per_million_accesses());
      return spec;
    }
    case lab::v1::AccessPattern::KIND_NOT_SET:
      break;
  }
  return BadPattern("workload.pattern",
                    "workload.pattern names no kind; set one of "
                    "sequential, uniform, zipf or hot_cold");
}

absl::StatusOr<WorkloadSources> PatternSources(
    const lab::v1::Workload& workload, uint32_t vcpu_count,
    const ManagedVm& vm) {
  absl::StatusOr<mmu::PatternSpec> spec = ToSpec(workload.pattern());
  if (!spec.ok()) return spec.status();
  spec->seed = static_cast<uint64_t>(workload.seed());
  spec->access_count = static_cast<uint64_t>(workload.access_count());
  absl::StatusOr<mmu::GpaSpace> space =
      SpaceOf(workload.pattern().has_extent(), workload.pattern().extent(), vm,
              "workload.pattern.extent");
  if (!space.ok()) return space.status();
  if (absl::Status status =
          mmu::Validate(*spec, space->size_bytes(), vcpu_count);
      !status.ok()) {
    return BadPattern("workload.pattern",
                      absl::StrCat("workload.pattern: ", status.message()));
  }
  WorkloadSources made;
  for (uint32_t i = 0; i < vcpu_count; ++i) {
    made.sources.push_back(mmu::MakePattern(*spec, *space, i, vcpu_count));
  }
  made.total_access_count = Total(workload.access_count(), vcpu_count);
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

absl::StatusOr<WorkloadSources> TraceSources(const lab::v1::Workload& workload,
                                             uint32_t vcpu_count,
                                             const ManagedVm& vm,
                                             const std::string& trace_dir) {
  const lab::v1::TraceReplay& trace = workload.trace();
  if (trace.repeat_count() < 0) {
    return WrongValue(mmu::Reason::kInvalidPattern,
                      "workload.trace.repeat_count", trace.repeat_count(),
                      "0 or more");
  }
  mmu::TraceReplayOptions options;
  options.repeat_count = trace.repeat_count() == 0
                             ? 1
                             : static_cast<uint64_t>(trace.repeat_count());
  options.access_count = static_cast<uint64_t>(workload.access_count());
  options.seed = static_cast<uint64_t>(workload.seed());
  switch (trace.placement()) {
    case lab::v1::PAGE_PLACEMENT_UNSPECIFIED:
    case lab::v1::PAGE_PLACEMENT_CONTIGUOUS:
      break;
    case lab::v1::PAGE_PLACEMENT_SCATTERED:
      options.placement = mmu::PagePlacement::kScattered;
      break;
    default:
      return WrongValue(
          mmu::Reason::kInvalidEnumValue, "workload.trace.placement",
          static_cast<int>(trace.placement()), "CONTIGUOUS or SCATTERED");
  }
  absl::StatusOr<mmu::GpaSpace> space =
      SpaceOf(trace.has_extent(), trace.extent(), vm, "workload.trace.extent");
  if (!space.ok()) return space.status();
  WorkloadSources made;
  for (uint32_t i = 0; i < vcpu_count; ++i) {
    absl::StatusOr<std::unique_ptr<trace::TraceReader>> reader =
        OpenTrace(trace_dir, trace.trace_name());
    if (!reader.ok()) return reader.status();
    if (i == 0) {
      // All readers read the same file: one check is enough.
      if (absl::Status status = (*reader)->Verify(); !status.ok()) {
        return BadTrace(status);
      }
      // Accesses that cross a page count as two, so the total of a whole trace
      // is not known in advance; that of a limited run is.
      made.total_access_count = Total(workload.access_count(), vcpu_count);
    }
    made.sources.push_back(std::make_unique<mmu::TraceReplaySource>(
        *std::move(reader), space->Share(i, vcpu_count), options));
  }
  return made;
}

}  // namespace

absl::StatusOr<WorkloadSources> MakeSources(const lab::v1::Workload& workload,
                                            uint32_t vcpu_count,
                                            const ManagedVm& vm,
                                            const std::string& trace_dir) {
  if (workload.access_count() < 0) {
    return WrongValue(mmu::Reason::kInvalidPattern, "workload.access_count",
                      workload.access_count(), "0 or more");
  }
  switch (workload.program_case()) {
    case lab::v1::Workload::kPattern:
      return PatternSources(workload, vcpu_count, vm);
    case lab::v1::Workload::kTrace:
      return TraceSources(workload, vcpu_count, vm, trace_dir);
    case lab::v1::Workload::PROGRAM_NOT_SET:
      break;
  }
  return BadPattern("workload.pattern",
                    "workload names no program; set workload.pattern or "
                    "workload.trace");
}

}  // namespace mmud
