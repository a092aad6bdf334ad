#include "mmu_core/stage2/s2_page.h"

#include "mmu_core/paging/basic_table_pool_impl.h"

namespace mmu {

template class BasicTablePool<S2Page<Arm4K>>;
template class BasicTablePool<S2Page<Arm16K>>;
template class BasicTablePool<S2Page<Arm64K>>;

}  // namespace mmu
