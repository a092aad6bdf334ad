// Measures how costs grow with the guest: from 1 GiB to 1 TiB of memory, from
// 4,000 memslots to the maximum number, and from 1 to 64 vCPUs, which are more
// than there are processors.

#ifndef BENCH_GROWTH_H_
#define BENCH_GROWTH_H_

#include <cstdint>
#include <ostream>
#include <vector>

#include "mmu_core/memory/region_request.h"

namespace mmu::bench {

struct GrowthOptions {
  std::vector<uint64_t> sizes_gib = {1, 64, 1024};
  std::vector<uint32_t> slots = {4000, 8000, 16000, kUserMemslots};
  std::vector<int> vcpus = {1, 2, 4, 8, 16, 32, 64};
  // The number of pages that each vCPU populates in the third table.
  uint64_t pages_per_vcpu = 16384;
};

// Prints the three tables in Markdown, each row as soon as it is measured. The
// guests have no contents, but their page tables are real: a guest of 1 TiB has
// 2 GiB of them.
void RunGrowth(const GrowthOptions& options, std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_GROWTH_H_
