#include "mmu_core/guest/trace_replay.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"

namespace mmu {

TraceReplaySource::TraceReplaySource(std::unique_ptr<TraceStream> stream,
                                     GpaSpace share,
                                     const TraceReplayOptions& options)
    : stream_(std::move(stream)), options_(options) {
  MMU_CHECK(stream_ != nullptr);
  if (share.pages() == 0) {
    End(absl::FailedPreconditionError(
        "the vCPU's share of guest memory is empty: use fewer vCPUs or more "
        "memory"));
    return;
  }
  map_ = std::make_unique<FirstTouchMap>(std::move(share), options.placement,
                                         options.seed);
}

uint64_t TraceReplaySource::first_touches() const {
  return map_ == nullptr ? 0 : map_->total_first_touches();
}

bool TraceReplaySource::End(absl::Status status) {
  ended_ = true;
  status_ = std::move(status);
  return false;
}

bool TraceReplaySource::Next(GuestAccess* access) {
  if (ended_) return false;
  if (options_.access_count != 0 && done_ == options_.access_count) {
    return End(absl::OkStatus());
  }
  GuestAccess program = std::exchange(rest_, GuestAccess{});
  if (program.size_bytes == 0 && !NextOfProgram(&program)) return false;

  const uint64_t to_page_end = kPageSize - (program.address_bytes & kPageMask);
  const auto here = static_cast<uint32_t>(
      std::min<uint64_t>(program.size_bytes, to_page_end));
  uint64_t gpa = 0;
  if (!Translate(program.address_bytes, &gpa)) return false;
  *access = GuestAccess{gpa, here, program.kind};
  if (here < program.size_bytes) {
    rest_ = GuestAccess{program.address_bytes + here, program.size_bytes - here,
                        program.kind};
  }
  ++done_;
  return true;
}

bool TraceReplaySource::NextOfProgram(GuestAccess* access) {
  absl::StatusOr<bool> more = stream_->Next(access);
  if (more.ok() && !*more) {
    if (!BeginNextRun()) return false;
    more = stream_->Next(access);
    if (more.ok() && !*more) {
      return End(
          absl::FailedPreconditionError("the trace is empty when read again"));
    }
  }
  if (!more.ok()) return End(more.status());
  if (access->size_bytes == 0 || access->size_bytes > kPageSize) {
    return End(absl::DataLossError(Format(
        "the trace holds an access of %d bytes at program address %#x: must "
        "be 1 to %d",
        access->size_bytes, access->address_bytes, kPageSize)));
  }
  return true;
}

bool TraceReplaySource::BeginNextRun() {
  if (done_ == done_at_run_start_) {
    return End(absl::FailedPreconditionError(
        "the trace holds no accesses: record one that does"));
  }
  done_at_run_start_ = done_;
  ++completed_runs_;
  if (options_.repeat_count != 0 && completed_runs_ == options_.repeat_count) {
    return End(absl::OkStatus());
  }
  if (absl::Status status = stream_->Rewind(); !status.ok()) {
    return End(std::move(status));
  }
  map_->StartNewProcess();
  return true;
}

bool TraceReplaySource::Translate(uint64_t program_address, uint64_t* gpa) {
  const std::optional<Gfn> gfn = map_->Map(program_address >> kPageShift);
  if (!gfn.has_value()) {
    return End(absl::ResourceExhaustedError(Format(
        "the traced program touches more than the %d guest pages (%d bytes) "
        "of this vCPU's share: give the VM more memory or use fewer vCPUs",
        map_->share().pages(), map_->share().size_bytes())));
  }
  *gpa = ToGpa(*gfn).value() + (program_address & kPageMask);
  return true;
}

}  // namespace mmu
