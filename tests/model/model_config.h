// The VM of one random run.

#ifndef TESTS_MODEL_MODEL_CONFIG_H_
#define TESTS_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "mmu_core/base/level.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::testing {

// Everything that a run depends on besides its operations. A value.
struct ModelConfig {
  uint64_t seed = 0;  // that made it; 0: it was written down
  // No memslots: the operations make them.
  VmConfig vm;
  int vcpus = 2;
  // The host's page size behind the memory of the guest's tables.
  Level guest_host_level = Level::k4K;
  // Whether the NX huge page mitigation is on at the start.
  bool nx_huge_pages = false;

  // The guest's tables, with MmuMode::kShadow and kNested. L1's have four or
  // five levels.
  GuestPagingConfig::Mode paging = GuestPagingConfig::Mode::k4Level;
  // kShadow: CR0.WP, CR4.SMEP, CR4.SMAP.
  bool wp = true;
  bool smep = false;
  bool smap = false;
  // kNested with EPT: L1's EPT has Accessed and Dirty bits; its entries may
  // grant execute alone.
  bool ept_ad_bits = true;
  bool ept_exec_only = false;
};

// The guest pages of one granule of the VM's tables; 1 on x86.
uint64_t PagesPerGranule(const VmConfig& vm);

// How many times as large as on x86 the places and memslots are, so that as
// many of the smallest blocks fit in: their pages, divided by 512.
uint64_t ScaleOf(const VmConfig& vm);

// The VM of a seed. Without `mmu` the seed chooses the MMU, too. Otherwise all
// else is as the seed says.
ModelConfig RandomModelConfig(uint64_t seed, absl::optional<MmuMode> mmu);

// In one line, with the seed.
std::string Describe(const ModelConfig& config);

}  // namespace mmu::testing

#endif  // TESTS_MODEL_MODEL_CONFIG_H_
