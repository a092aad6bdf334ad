// The rows of mmu_bench. Each function returns the rows of one file.

#ifndef BENCH_ROWS_H_
#define BENCH_ROWS_H_

#include <vector>

#include "bench/harness.h"

namespace mmu::bench {

std::vector<Benchmark> FaultRows();        // fault_*
std::vector<Benchmark> TlbRows();          // tlb_hit
std::vector<Benchmark> LogRows();          // enable_wp, clear_dirty*
std::vector<Benchmark> SplitRows();        // split_1g
std::vector<Benchmark> SealRows();         // seal_*
std::vector<Benchmark> AgeRows();          // age_*, walk_*
std::vector<Benchmark> MemoryRows();       // memory
std::vector<Benchmark> ContentionRows();   // fault_parallel
std::vector<Benchmark> StallRows();        // lock_hold, vcpu_stall_*
std::vector<Benchmark> ShadowFaultRows();  // shadow_fault*, nested_fault
std::vector<Benchmark> ShadowTableRows();  // guest_*_write, sync_page, invlpg
std::vector<Benchmark> ShadowSlotRows();   // nested_split, *_rmaps, *_memory
std::vector<Benchmark> Stage2Rows();       // s2_*

// All of them, in the order of the report.
std::vector<Benchmark> AllRows();

}  // namespace mmu::bench

#endif  // BENCH_ROWS_H_
