// The tables that an audit finds, and the users of roots: INV-7 and INV-19
// (vm/inspect/audit.h).

#ifndef MMU_CORE_VM_INSPECT_TABLE_AUDIT_H_
#define MMU_CORE_VM_INSPECT_TABLE_AUDIT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Externally synchronised: belongs to the auditor's thread, while no vCPU runs.
class TableAudit {
 public:
  TableAudit(const std::vector<std::unique_ptr<Vcpu>>& vcpus, AuditSink& sink);

  // A table in use.
  void Add(const ShadowPage& page);
  // The number of references of vCPUs to the root with this table, which an MMU
  // has in its lists. To be called once for each root.
  int TakeRootReferences(const PageTable& table);

  // To be called once all MMUs were audited: adds the tables in stock, and
  // checks the stocks, the pools and that each vCPU's root was found.
  void Check(VmCore& vm) ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

 private:
  void CheckStock(const TableCache& tables);
  void CheckStock(const ShadowCaches& caches);

  const std::vector<std::unique_ptr<Vcpu>>& vcpus_;
  AuditSink& sink_;
  std::unordered_set<const ShadowPage*> used_;
  std::map<const TablePool*, uint64_t> used_of_pool_;
  std::unordered_map<const PageTable*, int> root_references_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_TABLE_AUDIT_H_
