#include "mmu_core/paging/table_pool.h"

#include "mmu_core/paging/basic_table_pool_impl.h"

namespace mmu {

template class BasicTablePool<ShadowPage>;

}  // namespace mmu
