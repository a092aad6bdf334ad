#include "client/comparison/guest_mmu.h"

#include <vector>

#include "absl/types/span.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

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
             vm->mutable_guest_paging()->set_large_pages(v1::FEATURE_ON);
           },
       .huge_page_fault = HugePageFault::kDrops,
       .guest_tables = GuestTables::kYes},
      {.word = "nested",
       .select =
           [](v1::Vm* vm) {
             vm->mutable_nested();
             vm->mutable_guest_paging()->set_large_pages(v1::FEATURE_ON);
           },
       .huge_page_fault = HugePageFault::kDrops,
       .guest_tables = GuestTables::kYes},
  };
  return *mmus;
}

}  // namespace mmud::client
