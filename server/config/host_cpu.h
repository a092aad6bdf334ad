// What the daemon wants to know of the processor it runs on.

#ifndef SERVER_CONFIG_HOST_CPU_H_
#define SERVER_CONFIG_HOST_CPU_H_

#include <string>

#include "mmu_core/vm/core/nx_parameters.h"

namespace mmud {

inline constexpr char kItlbMultihitFile[] =
    "/sys/devices/system/cpu/vulnerabilities/itlb_multihit";

// Whether the processor has the iTLB multi-hit erratum, by what the kernel says
// in `path`: no, if it says "Not affected" or nothing at all.
mmu::ItlbMultihit ReadItlbMultihit(const std::string& path = kItlbMultihitFile);

}  // namespace mmud

#endif  // SERVER_CONFIG_HOST_CPU_H_
