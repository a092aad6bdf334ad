#include "mmu_core/vm/vcpu/pre_fault.h"

#include <algorithm>
#include <cerrno>

#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/fault_handler.h"
#include "mmu_core/vm/vcpu/held_back.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

absl::Status Check(const PreFaultRange& range) {
  const auto invalid = [](Reason reason, const char* field,
                          const std::string& message) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {reason, field, EINVAL}, message);
  };
  if (range.flags != 0) {
    return invalid(Reason::kInvalidFlags, "flags",
                   Format("flags 0x%x: none is defined; give 0", range.flags));
  }
  if (range.gpa.value() % kPageSize != 0 || range.size_bytes % kPageSize != 0) {
    return invalid(Reason::kUnaligned, "gpa",
                   Format("gpa 0x%x, %d bytes: both must be multiples of 4096",
                          range.gpa.value(), range.size_bytes));
  }
  if (range.gpa.value() + range.size_bytes <= range.gpa.value()) {
    return invalid(Reason::kInvalidRange, "size_bytes",
                   Format("gpa 0x%x, %d bytes: the range must not be "
                          "empty or wrap",
                          range.gpa.value(), range.size_bytes));
  }
  return absl::OkStatus();
}

// Maps the page at `gfn` and sets `*level` to the level that then maps it.
absl::Status MapOne(VmCore& vm, Vcpu& vcpu, Gfn gfn, Level* level,
                    absl::FunctionRef<bool()> interrupted) {
  for (;;) {
    if (vcpu.dirty_ring() != nullptr && vcpu.dirty_ring()->SoftFull()) {
      // The map operation logs a page that it maps writable. The guest's next
      // entry then finds the ring as full as after a fault (DL-42).
      vcpu.gate().AddRequests(kDirtyRingSoftFull);
      return MakeError(absl::StatusCode::kResourceExhausted,
                       {Reason::kDirtyRingFull, "", EAGAIN},
                       "the vCPU's dirty ring is full; harvest and reset it, "
                       "then continue with the rest of the range");
    }
    if (interrupted()) {
      return MakeError(absl::StatusCode::kCancelled,
                       {Reason::kInterrupted, "", EINTR},
                       "interrupted; continue with the rest of the range");
    }
    const absl::StatusOr<PrefetchResult> result =
        HandlePrefetch(vm, vcpu, gfn, level);
    if (!result.ok()) return result.status();
    switch (*result) {
      case PrefetchResult::kMapped:
        return absl::OkStatus();
      case PrefetchResult::kRetry:
        if (absl::Status status = AwaitRelease(vm, vcpu, gfn, interrupted);
            !status.ok()) {
          return status;
        }
        continue;
      case PrefetchResult::kNoMemory:
        return MakeError(
            absl::StatusCode::kNotFound,
            {Reason::kNoMemoryThere, "gpa", ENOENT},
            Format("gpa 0x%x: no memslot is there; see the VM's list "
                   "of memslots",
                   ToGpa(gfn).value()));
      case PrefetchResult::kSlotChanging:
        return MakeError(
            absl::StatusCode::kAborted,
            {Reason::kMemslotChanging, "gpa", EAGAIN},
            Format("gpa 0x%x: its memslot is being deleted or moved; "
                   "try again",
                   ToGpa(gfn).value()));
    }
  }
}

}  // namespace

absl::Status PreFaultMemory(VmCore& vm, Vcpu& vcpu, PreFaultRange& range,
                            absl::FunctionRef<bool()> interrupted) {
  if (absl::Status status = Check(range); !status.ok()) return status;
  if (!vcpu.can_pre_fault()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {Reason::kNoTdpMmu, "", EOPNOTSUPP},
                     "this VM's guest does not run on the TDP MMU; only there "
                     "can pages be mapped ahead of the guest");
  }
  bool done_any = false;
  while (range.size_bytes > 0) {
    const Gfn gfn = ToGfn(range.gpa);
    Level level = Level::k4K;
    if (absl::Status status = MapOne(vm, vcpu, gfn, &level, interrupted);
        !status.ok()) {
      return done_any ? absl::OkStatus() : status;
    }
    const uint64_t end = ToGpa(RoundDown(gfn, level) + PagesPer(level)).value();
    const uint64_t step = std::min(end - range.gpa.value(), range.size_bytes);
    range.gpa += step;
    range.size_bytes -= step;
    done_any = true;
  }
  return absl::OkStatus();
}

}  // namespace mmu
