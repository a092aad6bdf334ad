#include "mmu_core/vm/inspect/table_audit.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "mmu_core/paging/table_cache.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {

TableAudit::TableAudit(const std::vector<std::unique_ptr<Vcpu>>& vcpus,
                       AuditSink& sink)
    : vcpus_(vcpus), sink_(sink) {
  for (const auto& vcpu : vcpus_) {
    if (const TdpRoot* const root = vcpu->root(); root != nullptr) {
      ++root_references_[root->table()];
    }
    if (vcpu->shadow() == nullptr) continue;
    vcpu->shadow()->roots().ForEachReference(
        [this](const ShadowPageState& page) {
          ++root_references_[page.page->table];
        });
  }
}

void TableAudit::Add(const ShadowPage& page) {
  if (!used_.insert(&page).second) {
    sink_.Violation(19, "the table of gfn 0x%x level %d has two uses",
                    page.gfn.value(), page.role.level_number());
    return;
  }
  if (TablePool::DescriptorOf(page.table) != &page) {
    sink_.Violation(19, "the table of gfn 0x%x level %d has another descriptor",
                    page.gfn.value(), page.role.level_number());
  }
  ++used_of_pool_[page.pool];
}

int TableAudit::TakeRootReferences(const PageTable& table) {
  const auto at = root_references_.find(&table);
  if (at == root_references_.end()) return 0;
  const int count = at->second;
  root_references_.erase(at);
  return count;
}

void TableAudit::Check(VmCore& vm) {
  for (const auto& [table, count] : root_references_) {
    sink_.Violation(7, "vCPUs have %d references to a root that no MMU has",
                    count);
  }
  CheckStock(vm.operation_tables);
  if (vm.shadow != nullptr) CheckStock(vm.shadow->split_caches());
  for (const auto& vcpu : vcpus_) {
    CheckStock(vcpu->table_cache());
    ShadowVcpu* const shadow = vcpu->shadow();
    if (shadow == nullptr) continue;
    CheckStock(shadow->guest().caches);
    shadow->roots().ForEachOwnTable(
        [this](const ShadowPage& page) { Add(page); });
  }
  for (const auto& [pool, used] : used_of_pool_) {
    if (pool->tables_out() >= used) continue;
    sink_.Violation(19, "%d tables of a pool are in use, but it counts %d",
                    used, pool->tables_out());
  }
}

void TableAudit::CheckStock(const TableCache& tables) {
  int found = 0;
  tables.ForEach([&](const ShadowPage& page) {
    ++found;
    Add(page);
  });
  if (found != tables.count()) {
    sink_.Violation(19, "a stock of tables counts %d, but has %d",
                    tables.count(), found);
  }
}

void TableAudit::CheckStock(const ShadowCaches& caches) {
  CheckStock(caches.tables);
  const bool sound =
      caches.states.CountChain() == caches.states.count() &&
      caches.translations.CountChain() == caches.translations.count() &&
      caches.lists.CountChain() == caches.lists.count();
  if (!sound) {
    sink_.Violation(19,
                    "a stock for shadow pages does not have what it counts");
  }
}

}  // namespace mmu
