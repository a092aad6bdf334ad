// One round of stress: a fresh VM, vCPUs that never stop, threads that change
// the VM's memory in every possible way, and a migration whose copy must be
// right.

#ifndef TESTS_STRESS_STRESS_ROUND_H_
#define TESTS_STRESS_STRESS_ROUND_H_

#include "tests/stress/round_config.h"
#include "tests/stress/round_result.h"

namespace mmu::stress {

RoundResult RunRound(const RoundConfig& config);

}  // namespace mmu::stress

#endif  // TESTS_STRESS_STRESS_ROUND_H_
