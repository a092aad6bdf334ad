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
  // Of the vCPU curve: pages that each populates.
  uint64_t pages_per_vcpu = 16384;
};

// Prints the three tables, in Markdown, a row as soon as it is measured. The
// guests have no contents; their tables are real: 2 GiB of them for 1 TiB.
void RunGrowth(const GrowthOptions& options, std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_GROWTH_H_
