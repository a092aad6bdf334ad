#include "mmu_core/sync/thread_index.h"

#include <atomic>
#include <cstdint>

namespace mmu::thread_index_internal {

constinit thread_local uint32_t index_plus_one = 0;

uint32_t Assign() {
  static std::atomic<uint32_t> next{0};
  index_plus_one = next.fetch_add(1, std::memory_order_relaxed) + 1;
  return index_plus_one;
}

}  // namespace mmu::thread_index_internal
