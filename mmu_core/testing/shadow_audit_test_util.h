// An audit of shadow pages without a VM, for tests.

#ifndef MMU_CORE_TESTING_SHADOW_AUDIT_TEST_UTIL_H_
#define MMU_CORE_TESTING_SHADOW_AUDIT_TEST_UTIL_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_join.h"
#include "absl/types/optional.h"
#include "mmu_core/base/format.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/mmu/guest_table_audit.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/shadow/shadow_audit.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/shadow_slots_test_util.h"

namespace mmu::testing {

// Checks what needs no more of a VM than its memslots.
class ShadowTestAudit final : public AuditSink {
 public:
  explicit ShadowTestAudit(ShadowTestSlots& slots) : slots_(slots) {}

  // The findings, one per line; "" if there are none.
  std::string Run(const MmuWriteLocked& lock, const ShadowPages& pages,
                  const ShadowParts& parts, const NxHugePageList* listed) {
    RcuReadGuard rcu;
    AuditShadow(lock, pages, parts, listed, *this);
    guest_tables_.Check(*this);
    return absl::StrJoin(findings_, "\n");
  }
  uint64_t leafs() const { return leafs_; }
  uint64_t pages() const { return pages_; }

  void Report(int invariant, std::string what) override {
    findings_.push_back(Format("INV-%d: %s", invariant, what));
  }
  void CheckLeaf(const AuditedLeaf& leaf) override {
    ++leafs_;
    guest_tables_.AddLeaf(leaf);
    if (slots_.SlotOf(leaf.as_id, leaf.gfn) == nullptr) {
      Violation(4, "gfn 0x%x is in no slot", leaf.gfn.value());
    }
  }
  void CheckNonPresent(const AuditedNonPresent&) override {}
  void CheckGuestTable(const AuditedGuestTable& table) override {
    guest_tables_.AddTable(table);
  }
  void CheckTable(const ShadowPage&) override {}
  absl::optional<int> RootReferences(const PageTable&) override {
    return absl::nullopt;
  }
  void ForEachSlot(absl::FunctionRef<void(const Memslot&)> fn) override {
    slots_.ForEachSlot(fn);
  }
  void CountTables(uint64_t) override {}
  void CountShadowPages(uint64_t pages) override { pages_ += pages; }

 private:
  ShadowTestSlots& slots_;
  GuestTableAudit guest_tables_;
  std::vector<std::string> findings_;
  uint64_t leafs_ = 0;
  uint64_t pages_ = 0;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_SHADOW_AUDIT_TEST_UTIL_H_
