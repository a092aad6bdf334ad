#include "mmu_core/sync/asymmetric_barrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"

namespace mmu {
namespace {

// True if this process may use the expedited membarrier from now on.
bool RegisterMembarrier() {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0,
                 0) == 0;
}

}  // namespace

namespace asymmetric_barrier_internal {
const bool have_membarrier = RegisterMembarrier();
}  // namespace asymmetric_barrier_internal

#ifndef MMU_TSAN
void HeavyBarrier() {
  AtHook(HookPoint::kHeavyBarrier);
  if (asymmetric_barrier_internal::have_membarrier) {
    MMU_CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) ==
              0);
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
}
#endif

}  // namespace mmu
