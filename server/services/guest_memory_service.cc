#include "server/services/guest_memory_service.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/control/in_flight_ranges.h"
#include "server/control/vm_registry.h"
#include "server/convert/convert.h"
#include "server/convert/in_flight_convert.h"
#include "server/convert/page_chunk_builder.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

// Pages read in one step: 256 KiB.
constexpr uint64_t kStepPages = 64;

// Checks that the ranges have contents. Called before the first message, so
// that the stream does not break off for this reason.
absl::Status CheckContents(const ManagedVm& vm,
                           const std::vector<mmu::GfnRange>& ranges) {
  return AboutVm(InFields(vm.vm().CheckContents(ranges), {{"ranges", ""}}),
                 vm.name());
}

// Returns the next ranges to read; none at the end.
using NextRanges =
    std::function<absl::StatusOr<std::vector<mmu::GfnRange>>(const ManagedVm&)>;

// The messages of one call: chunks, then the trailer. Between two calls of Next
// it holds only a use of the VM. Thread-compatible.
class PageStream {
 public:
  PageStream(NextRanges next_ranges, int64_t message_bytes, VmUse vm)
      : next_ranges_(std::move(next_ranges)),
        vm_(std::move(vm)),
        builder_(static_cast<size_t>(message_bytes)),
        buffer_(kStepPages * mmu::kPageSize) {}

  const ManagedVm& vm() const { return *vm_; }

  // Makes the next message; false after the trailer. `keep_going` is called
  // before each step; its error is returned.
  absl::StatusOr<bool> Next(const std::function<absl::Status()>& keep_going,
                            v1::ReadPagesResponse* message) {
    if (ended_) return false;
    while (!builder_.full()) {
      if (read_ == added_) {
        if (absl::Status status = keep_going(); !status.ok()) return status;
        const absl::StatusOr<bool> read = ReadStep();
        if (!read.ok()) return read.status();
        if (!*read) break;
        continue;
      }
      builder_.Add(first_ + (added_ << mmu::kPageShift),
                   absl::MakeConstSpan(buffer_).subspan(added_ * mmu::kPageSize,
                                                        mmu::kPageSize));
      ++added_;
    }
    if (!builder_.empty()) {
      *message->mutable_chunk() = builder_.Take();
      return true;
    }
    *message->mutable_trailer() = builder_.totals();
    ended_ = true;
    return true;
  }

 private:
  // Reads the next pages into buffer_; false if none is left.
  absl::StatusOr<bool> ReadStep() {
    if (range_ == ranges_.size()) {
      absl::StatusOr<std::vector<mmu::GfnRange>> next = next_ranges_(*vm_);
      if (!next.ok()) return next.status();
      ranges_ = *std::move(next);
      range_ = 0;
      if (ranges_.empty()) return false;
      at_ = ranges_[0].start;
    }
    const mmu::GfnRange& range = ranges_[range_];
    const uint64_t pages = std::min(kStepPages, range.end - at_);
    absl::Status status = vm_->vm().ReadMemory(
        mmu::ToGpa(at_),
        absl::MakeSpan(buffer_).subspan(0, pages * mmu::kPageSize));
    if (!status.ok()) return InFields(std::move(status), {{"gpa", "extents"}});
    first_ = mmu::ToGpa(at_);
    read_ = pages;
    added_ = 0;
    at_ += pages;
    if (at_ == range.end && ++range_ < ranges_.size()) {
      at_ = ranges_[range_].start;
    }
    return true;
  }

  const NextRanges next_ranges_;
  std::vector<mmu::GfnRange> ranges_;  // the last ranges from the source
  const VmUse vm_;
  PageChunkBuilder builder_;
  std::vector<std::byte> buffer_;
  mmu::Gpa first_;      // address of the first page in buffer_
  uint64_t read_ = 0;   // pages in buffer_
  uint64_t added_ = 0;  // number of them passed to the builder
  size_t range_ = 0;    // the range to read from,
  mmu::Gfn at_;         // and the next page there
  bool ended_ = false;
};

// The ranges of a list of extents.
absl::StatusOr<NextRanges> ReadExtents(const v1::ReadPagesRequest& request,
                                       const ManagedVm& vm) {
  absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      ToRangesOfVm(request.extents(), vm.SortedSlots(), "extents");
  if (!ranges.ok()) return ranges.status();
  if (absl::Status status = CheckContents(vm, *ranges); !status.ok()) {
    return status;
  }
  return NextRanges([left = *std::move(ranges)](const ManagedVm&) mutable {
    return std::exchange(left, {});
  });
}

// The ranges of an epoch's pages in flight.
absl::StatusOr<NextRanges> ReadInFlight(const v1::PagesInFlight& request,
                                        const ManagedVm& vm) {
  const absl::StatusOr<PagesInFlight> pages = ToPagesInFlight(request);
  if (!pages.ok()) return pages.status();
  absl::StatusOr<InFlightRanges> ranges = InFlightRanges::Create(*pages, vm);
  if (!ranges.ok()) return ranges.status();
  if (absl::Status status = CheckContents(vm, ranges->Within()); !status.ok()) {
    return status;
  }
  return NextRanges([all = *std::move(ranges)](const ManagedVm& of) mutable {
    return all.Next(of);
  });
}

absl::StatusOr<NextRanges> RangesOf(const v1::ReadPagesRequest& request,
                                    const ManagedVm& vm) {
  if (request.extents().empty() != request.has_in_flight()) {
    return InvalidField(
        mmu::Reason::kInvalidRange, "extents",
        request.has_in_flight()
            ? "extents and in_flight are both set; set one of them"
            : "neither extents nor in_flight is set; set one of them");
  }
  return request.has_in_flight() ? ReadInFlight(request.in_flight(), vm)
                                 : ReadExtents(request, vm);
}

}  // namespace

GuestMemoryServiceImpl::GuestMemoryServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.GuestMemoryService", state.calls), state_(state) {
  Stream("ReadPages", this, &GuestMemoryServiceImpl::ReadPages);
  CheckComplete();
}

absl::StatusOr<MessageSource<v1::ReadPagesResponse>>
GuestMemoryServiceImpl::ReadPages(CallContext* context,
                                  const v1::ReadPagesRequest* request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<int64_t> message_bytes =
      ToMessageBytes(request->max_message_bytes());
  if (!message_bytes.ok()) return message_bytes.status();
  absl::StatusOr<NextRanges> ranges = RangesOf(*request, **vm);
  if (!ranges.ok()) return ranges.status();
  auto pages = std::make_shared<PageStream>(*std::move(ranges), *message_bytes,
                                            *std::move(vm));
  return MessageSource<v1::ReadPagesResponse>(
      [this, context,
       pages](v1::ReadPagesResponse* message) -> absl::StatusOr<bool> {
        return pages->Next(
            [&] { return CheckStream(*context, state_, pages->vm()); },
            message);
      });
}

}  // namespace mmud
