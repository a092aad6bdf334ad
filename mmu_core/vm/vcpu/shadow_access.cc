// The accesses of a vCPU that runs on shadow pages.

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/access_loop.h"
#include "mmu_core/vm/vcpu/shadow_fault.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/shadow_walk.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// An access of a vCPU that runs on shadow pages.
class ShadowVcpu::ShadowAccess {
 public:
  ShadowAccess(ShadowVcpu& shadow, uint64_t linear_address, int size_bytes,
               const GuestPageAccess& access, uint64_t* word, GuestFault* fault)
      : shadow_(shadow),
        parts_{.format = shadow.format(),
               .mmio = shadow.vm_.mmio,
               .memory = shadow.vm_.memory,
               .permissions = shadow.paging_.hardware},
        address_(shadow.paging_.Translated(linear_address)),
        in_tables_(address_ >> shadow.paging_.AddressBits() == 0),
        size_bytes_(size_bytes),
        access_(access),
        word_(word),
        guest_fault_(fault) {}

  const TlbEntry* Lookup() {
    const TlbEntry* entry = in_tables_ ? shadow_.tlb_.Lookup(page()) : nullptr;
    return entry != nullptr && shadow_.CanUse(*entry, access_) ? entry
                                                               : nullptr;
  }
  void Perform(const TlbEntry& entry) {
    ShadowVcpu::Perform(entry, address_, size_bytes_, access_.kind, word_);
  }
  bool HasRoot() const {
    return shadow_.roots_.table() != nullptr && !shadow_.roots_.IsObsolete();
  }
  absl::Status LoadRoot() { return shadow_.LoadRoot(); }
  WalkResult Walk() {
    if (!in_tables_) return {};
    return ShadowWalk(parts_, shadow_.roots_, page(), access_,
                      shadow_.tlb_.tables());
  }
  void Insert(const TlbEntry& entry) { shadow_.tlb_.Insert(entry); }
  void AfterWalk() {}

  FaultStep Fault(const WalkResult& walk) {
    // As on the TDP MMU: the fault makes the processor drop the translation.
    if (walk.kind == WalkResult::Kind::kNotAllowed ||
        shadow_.tlb_.tables() != nullptr) {
      shadow_.tlb_.FlushPage(page());
    }
    ShadowFaultOutcome outcome = HandleShadowFault(
        shadow_.vm_, shadow_.vcpu_, shadow_, address_, access_, walk);
    gpa_ = outcome.gpa;
    if (!outcome.status.ok()) {
      SetStatus(std::move(outcome.status));
      return FaultStep::kError;
    }
    if (outcome.guest.has_value()) {
      *guest_fault_ = *outcome.guest;
      // A fault invalidates what is cached for its address (SDM vol. 3,
      // 4.10.4.1 and 29.4.3.1). A page that is unsync is such a cache.
      if (walk.kind == WalkResult::Kind::kNotAllowed) {
        shadow_.roots_.InvalidateAddressOf(*shadow_.guest_, shadow_.where_.pcid,
                                           address_, nullptr);
      }
      shadow_.tlb_.FlushPage(page());
      return FaultStep::kGuestFault;
    }
    return StepAfter(outcome.result);
  }
  Gpa gpa() const { return gpa_; }
  GuestWords& memory() { return shadow_.memory_; }
  int size_bytes() const { return size_bytes_; }
  uint64_t word() const { return *word_; }
  void SetStatus(absl::Status status) { shadow_.status_ = std::move(status); }

 private:
  PageNumber page() const { return PageNumberOf(address_); }

  ShadowVcpu& shadow_;
  const ShadowWalkParts parts_;
  const uint64_t address_;
  const bool in_tables_;
  const int size_bytes_;
  const GuestPageAccess access_;
  uint64_t* const word_;
  GuestFault* const guest_fault_;
  Gpa gpa_;  // translation of the address; of the last fault
};

AccessOutcome ShadowVcpu::Access(uint64_t address, int size_bytes,
                                 const GuestPageAccess& access, uint64_t* word,
                                 GuestFault* fault) {
  vcpu_.stats().accesses.Add();
  if (access.kind == AccessKind::kWrite) vcpu_.stats().writes.Add();
  return ContinueAccess(address, size_bytes, access, word, fault);
}

AccessOutcome ShadowVcpu::ContinueAccess(uint64_t address, int size_bytes,
                                         const GuestPageAccess& access,
                                         uint64_t* word, GuestFault* fault) {
  MMU_DCHECK((size_bytes == 4 || size_bytes == 8) &&
             address % static_cast<uint64_t>(size_bytes) == 0);
  return RunAccess(
      vm_, vcpu_,
      ShadowAccess(*this, address, size_bytes, access, word, fault));
}

}  // namespace mmu
