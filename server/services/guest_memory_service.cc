#include "server/services/guest_memory_service.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/sync_stream.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/services/call.h"
#include "server/services/convert.h"
#include "server/services/page_chunk_builder.h"

namespace mmud {
namespace {

// Pages read in one step: 256 KiB.
constexpr uint64_t kStepPages = 64;

absl::Status CheckContents(const ManagedVm& vm,
                           const std::vector<mmu::GfnRange>& ranges) {
  for (const mmu::MemslotInfo& slot : vm.SortedSlots()) {
    if (slot.has_contents || slot.config.address_space != 0) continue;
    const mmu::GfnRange of_slot = mmu::GfnRange::Of(
        mmu::ToGfn(slot.config.gpa), slot.config.size_bytes >> mmu::kPageShift);
    for (const mmu::GfnRange& range : ranges) {
      if (!range.Overlaps(of_slot)) continue;
      return WithResource(
          ApiError(absl::StatusCode::kFailedPrecondition, "NO_CONTENTS",
                   absl::StrCat("slot ", slot.config.slot,
                                " has no contents: its backing is "
                                "METADATA_ONLY")),
          "mmud.v1.Vm", vm.name());
    }
  }
  return absl::OkStatus();
}

}  // namespace

grpc::Status GuestMemoryServiceImpl::ReadPages(
    grpc::ServerContext* context, const v1::ReadPagesRequest* request,
    grpc::ServerWriter<v1::ReadPagesResponse>* writer) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  const StreamLimiter::Place place = state_.streams.TryTake();
  if (!place) {
    return ToGrpcStatus(LimitExceeded(
        absl::StrCat(state_.streams.places(),
                     " streams are open, as many as "
                     "this daemon allows (half of --max_rpc_threads)")));
  }
  if (request->extents().empty()) {
    return ToGrpcStatus(InvalidField("INVALID_RANGE", "extents",
                                     "extents is empty; it says what to "
                                     "read"));
  }
  const absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      ToRangesOfVm(request->extents(), **vm, "extents");
  if (!ranges.ok()) return ToGrpcStatus(ranges.status());
  const absl::StatusOr<int64_t> message_bytes =
      ToMessageBytes(request->max_message_bytes());
  if (!message_bytes.ok()) return ToGrpcStatus(message_bytes.status());
  if (absl::Status status = CheckContents(**vm, *ranges); !status.ok()) {
    return ToGrpcStatus(status);
  }

  const ManagedVm::BreakableStream breakable(
      **vm, [context] { context->TryCancel(); });
  PageChunkBuilder builder(static_cast<size_t>(*message_bytes));
  v1::ReadPagesResponse response;
  const auto send = [&] {
    *response.mutable_chunk() = builder.Take();
    return writer->Write(response);
  };
  std::vector<std::byte> buffer(kStepPages * mmu::kPageSize);
  for (const mmu::GfnRange& range : *ranges) {
    for (mmu::Gfn at = range.start; at < range.end;) {
      if (absl::Status status = CheckStream(*context, state_, **vm);
          !status.ok()) {
        return ToGrpcStatus(status);
      }
      const uint64_t pages = std::min(kStepPages, range.end - at);
      const auto bytes =
          absl::MakeSpan(buffer).subspan(0, pages * mmu::kPageSize);
      absl::Status status = (*vm)->vm().ReadMemory(mmu::ToGpa(at), bytes);
      if (!status.ok()) return ToGrpcStatus(status);
      for (uint64_t i = 0; i < pages; ++i) {
        if (builder.full() && !send()) {
          return ToGrpcStatus(CheckStream(*context, state_, **vm));
        }
        builder.Add(mmu::ToGpa(at + i),
                    bytes.subspan(i * mmu::kPageSize, mmu::kPageSize));
      }
      at += pages;
    }
  }
  if (!builder.empty() && !send()) {
    return ToGrpcStatus(CheckStream(*context, state_, **vm));
  }
  *response.mutable_trailer() = builder.totals();
  writer->Write(response);
  return grpc::Status::OK;
}

}  // namespace mmud
