// The kinds of MMU on which the programs can run a guest.

#ifndef CLIENT_GUEST_MMU_H_
#define CLIENT_GUEST_MMU_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

// What the first write to a logged huge mapping does to it, if nothing has
// split the mapping before.
enum class HugePageFault : uint8_t {
  kSplits,  // replaces it by mappings one level smaller, as the TDP MMU does
  kDrops,   // removes it; each small page is mapped by a fault of its own
};

// Whether the guest keeps page tables of its own, which it changes all the
// time. Huge mappings then also go because the guest changes its tables, and
// the guest's accesses include those of its kernel or hypervisor.
enum class GuestTables : uint8_t { kNo, kYes };

// How vCPUs are made to forget translations.
enum class FlushBy : uint8_t {
  kInterrupt,  // each is interrupted and flushes its own TLB
  kTlbi,       // TLB invalidate instructions, which are broadcast (arm64)
};

// One kind of MMU. A value.
struct GuestMmu {
  std::string word;  // of the command line and of results: "tdp"
  // Sets the fields of `vm` that choose this MMU, with its options. The guest's
  // own tables, if it has any, map large pages, so that there are huge mappings
  // to split.
  void (*select)(v1::Vm* vm) = nullptr;
  HugePageFault huge_page_fault = HugePageFault::kSplits;
  GuestTables guest_tables = GuestTables::kNo;
  FlushBy flush_by = FlushBy::kInterrupt;
};

// Every kind, in the order of --help. A further kind is one more row.
absl::Span<const GuestMmu> GuestMmus();

}  // namespace mmud::client

#endif  // CLIENT_GUEST_MMU_H_
