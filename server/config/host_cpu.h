// Facts about the host's processor that the daemon needs.

#ifndef SERVER_CONFIG_HOST_CPU_H_
#define SERVER_CONFIG_HOST_CPU_H_

#include <string>

#include "mmu_core/vm/core/nx_parameters.h"

namespace mmud {

inline constexpr char kItlbMultihitFile[] =
    "/sys/devices/system/cpu/vulnerabilities/itlb_multihit";

// Whether the processor has the iTLB multi-hit erratum, according to the
// kernel's file `path`. It has not if the file says "Not affected" or is
// missing.
mmu::ItlbMultihit ReadItlbMultihit(const std::string& path = kItlbMultihitFile);

}  // namespace mmud

#endif  // SERVER_CONFIG_HOST_CPU_H_
