// The guests' tables that an audit finds, and what follows from them for the
// leafs of all MMUs and for the memslots: INV-9 and INV-14 of
// vm/inspect/audit.h.

#ifndef MMU_CORE_MMU_GUEST_TABLE_AUDIT_H_
#define MMU_CORE_MMU_GUEST_TABLE_AUDIT_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/audit_sink.h"

namespace mmu {

// Externally synchronised: belongs to the auditor's thread.
class GuestTableAudit {
 public:
  void AddTable(const AuditedGuestTable& table);
  // Leafs through which no write can go are not of interest.
  void AddLeaf(const AuditedLeaf& leaf);

  // To be called once, after all tables and leafs were added.
  void Check(AuditSink& sink) const;

 private:
  using Place = std::pair<int, Gfn>;  // address space, gfn

  // The shadow pages of one guest's table.
  struct Pages {
    uint32_t all = 0;
    uint32_t trackers = 0;      // above level 1
    bool is_protected = false;  // no leaf may map the table writable
  };
  struct Leaf {
    Place first;
    Level level;
  };

  void CheckLeafs(AuditSink& sink) const;
  // The entries of tables_ in the slot.
  std::vector<std::pair<Gfn, Pages>> TablesIn(const Memslot& slot) const;
  void CheckTrackers(const Memslot& slot, AuditSink& sink) const;
  void CheckHugePages(const Memslot& slot, AuditSink& sink) const;

  std::map<Place, Pages> tables_;
  std::vector<Leaf> writable_leafs_;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_GUEST_TABLE_AUDIT_H_
