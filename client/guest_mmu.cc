#include "client/guest_mmu.h"

#include <vector>

#include "absl/types/span.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

namespace {

// Of a stage-2 MMU, whose blocks are split ahead in pieces of this size.
constexpr int64_t kChunkBytes = 2 << 20;

// The MMU then maps large pages too, and has them to split.
void LetGuestUseLargePages(v1::Vm& vm) {
  vm.mutable_guest_paging()->set_large_pages(v1::FEATURE_ON);
}

}  // namespace

absl::Span<const GuestMmu> GuestMmus() {
  static const auto* const mmus = new std::vector<GuestMmu>{
      {.word = "tdp", .select = [](v1::Vm* vm) { vm->mutable_tdp(); }},
      {.word = "tdp-shadow",
       .select = [](v1::Vm* vm) { vm->mutable_tdp_shadow(); },
       .huge_page_fault = HugePageFault::kDrops},
      {.word = "shadow",
       .select =
           [](v1::Vm* vm) {
             vm->mutable_shadow();
             LetGuestUseLargePages(*vm);
           },
       .huge_page_fault = HugePageFault::kDrops,
       .guest_tables = GuestTables::kYes},
      {.word = "nested",
       .select =
           [](v1::Vm* vm) {
             vm->mutable_nested();
             LetGuestUseLargePages(*vm);
           },
       .huge_page_fault = HugePageFault::kDrops,
       .guest_tables = GuestTables::kYes},
      {.word = "stage2",
       .select =
           [](v1::Vm* vm) {
             vm->mutable_stage2()->set_eager_split_chunk_bytes(kChunkBytes);
           },
       .huge_page_fault = HugePageFault::kDrops,
       .flush_by = FlushBy::kTlbi},
  };
  return *mmus;
}

}  // namespace mmud::client
