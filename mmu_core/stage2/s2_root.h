// The memory of a stage-2 root: up to 16 tables, contiguous and aligned to
// their size together (DDI0487, D8.2).

#ifndef MMU_CORE_STAGE2_S2_ROOT_H_
#define MMU_CORE_STAGE2_S2_ROOT_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/stage2/s2_page.h"

namespace mmu {

// Thread-safe: the memory is constant, its entries are atomic.
template <TableGeometry G>
class S2Root {
 public:
  // RESOURCE_EXHAUSTED: MMU_PAGES_EXHAUSTED if `budget` has no room,
  // RESOURCE_EXHAUSTED_MEMORY if the host has no memory. `budget` outlives the
  // root. Waits for tables that are being returned. REQUIRES:
  // MayFillFromPool() (sync/refill.h).
  static absl::StatusOr<std::unique_ptr<S2Root>> Create(int tables,
                                                        TableBudget& budget);
  // REQUIRES: no thread and no vCPU uses the tables.
  ~S2Root();
  S2Root(const S2Root&) = delete;
  S2Root& operator=(const S2Root&) = delete;

  S2Table<G>* tables() const { return tables_; }

 private:
  S2Root(S2Table<G>* tables, int count, TableBudget& budget)
      : tables_(tables), count_(count), budget_(budget) {}

  S2Table<G>* const tables_;
  const int count_;
  TableBudget& budget_;
};

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_ROOT_H_
