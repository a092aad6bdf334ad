// A VM of each kind of MMU with a guest in it, for tests of the auditor.

#ifndef MMU_CORE_TESTING_AUDITED_GUEST_H_
#define MMU_CORE_TESTING_AUDITED_GUEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/kernel/guest_kernel.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

// The MMUs that an audit may meet. A nested VM has two.
enum class AuditedMmu : uint8_t {
  kTdp,
  kTdpShadow,
  kShadow,
  kNestedL1,           // the TDP MMU, while the VM has shadow pages for L2
  kNestedL2,           // the shadow MMU of that VM
  kNestedL2WithoutAd,  // the same, below EPT tables without A/D bits
};
inline constexpr AuditedMmu kAuditedMmus[] = {
    AuditedMmu::kTdp,      AuditedMmu::kTdpShadow,
    AuditedMmu::kShadow,   AuditedMmu::kNestedL1,
    AuditedMmu::kNestedL2, AuditedMmu::kNestedL2WithoutAd};
constexpr bool IsL2(AuditedMmu mmu) {
  return mmu == AuditedMmu::kNestedL2 || mmu == AuditedMmu::kNestedL2WithoutAd;
}

const char* NameOf(AuditedMmu mmu);
std::ostream& operator<<(std::ostream& os, AuditedMmu mmu);

// A small leaf of the MMU.
struct LeafPlace {
  SpteSlot* slot = nullptr;
  ShadowPage* page = nullptr;  // that contains it
  int index = 0;               // in the page
  Gfn gfn;                     // that it maps
};

// A VM of 64 MiB. Its guest has pages 0, 1, ...: of L1, of L2, or of a program.
// Externally synchronised.
class AuditedGuest {
 public:
  static constexpr uint64_t kBytes = uint64_t{64} << 20;

  // The configuration of a VM with this MMU.
  static VmConfig ConfigFor(AuditedMmu mmu);

  explicit AuditedGuest(AuditedMmu mmu) : AuditedGuest(mmu, ConfigFor(mmu)) {}
  AuditedGuest(AuditedMmu mmu, const VmConfig& config,
               NxParameters& nx_parameters = NxParameters::Process());

  AuditedMmu mmu() const { return mmu_; }
  Vm& vm() { return *vm_; }
  VmState& state() { return vm_->state(); }
  MmuKind kind() const;
  MmuCounters& counters() { return state().counters.of(kind()); }
  // The format of the MMU's leafs.
  const SpteFormat& format();
  // Null except for the guest that it names.
  GuestKernel* kernel() { return kernel_.get(); }
  L1Hypervisor* l1() { return l1_.get(); }

  // One access of the guest to its page `page`; dies if it fails.
  void Access(uint64_t page, AccessKind kind);
  void Write(uint64_t page) { Access(page, AccessKind::kWrite); }
  void Read(uint64_t page) { Access(page, AccessKind::kRead); }

  // The present small leafs of the MMU that the guest may be allowed to write.
  std::vector<LeafPlace> WritableLeafs();
  // Those of them that map `gfn`.
  std::vector<LeafPlace> WritableLeafsOf(Gfn gfn);
  // The gfn to which the guest's page is mapped. REQUIRES: Write was the last
  // to write to the page (checked).
  Gfn GfnOf(uint64_t page);

 private:
  std::vector<LeafPlace> TdpLeafs();
  std::vector<LeafPlace> ShadowLeafs();

  const AuditedMmu mmu_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<GuestProcessor> cpu_;
  std::unique_ptr<GuestKernel> kernel_;
  std::unique_ptr<L1Processor> l1_cpu_;
  std::unique_ptr<L1Hypervisor> l1_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_AUDITED_GUEST_H_
