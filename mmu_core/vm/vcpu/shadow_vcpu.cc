#include "mmu_core/vm/vcpu/shadow_vcpu.h"

#include <atomic>
#include <cstddef>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/access_loop.h"
#include "mmu_core/vm/vcpu/shadow_fault.h"
#include "mmu_core/vm/vcpu/shadow_walk.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

GuestCpuid CpuidOf(const VmCore& vm) {
  return {.max_phys_bits = HostAddressBits(vm.config), .has_1g_pages = true};
}

// Whether accesses are by a guest's linear address, not by a guest-physical
// one.
bool IsLinear(const ShadowPaging& paging) {
  return paging.tables == GuestTables::kLegacy &&
         (paging.role.guest_level() != 0 ||
          paging.root_role.level_number() < 4);
}

// The number of address bits that are translated. A guest's own paging ignores
// the higher bits, which only repeat one of the translated ones. Higher bits
// that L1's tables do not cover are a violation.
int AddressBits(const ShadowPaging& paging) {
  if (IsLinear(paging) && paging.role.guest_level() < 4) return 32;
  return kPageShift + kEntryBits * paging.root_role.level_number();
}

// The part of an address that is translated and that the TLB uses as its key.
uint64_t Translated(uint64_t address, const ShadowPaging& paging) {
  if (!IsLinear(paging)) return address;
  return address & ((uint64_t{1} << AddressBits(paging)) - 1);
}

}  // namespace

ShadowPaging ShadowPaging::OfGuest(const GuestPagingState& state) {
  ShadowPaging paging;
  GuestPagingState guest = state;
  guest.cr4 &= ~kCr4Pke;
  paging.role = LegacyCpuRole(guest);
  paging.root_role = ShadowRootRole(paging.role);
  // The processor's paging is on even if the guest's is off, with write
  // protection that holds for supervisors: otherwise a supervisor could write
  // to write-protected pages.
  GuestPagingState processor = guest;
  processor.cr0 |= kCr0Pg | kCr0Wp;
  processor.efer |= kEferNx;
  processor.cr4 |= kCr4Pae;
  if ((guest.cr0 & kCr0Pg) == 0) processor.cr4 &= ~(kCr4Smep | kCr4Smap);
  paging.hardware = PermissionTable::ForLegacy(LegacyCpuRole(processor));
  return paging;
}

ShadowPaging ShadowPaging::OfEpt(const EptOptions& options) {
  ShadowPaging paging;
  paging.tables = GuestTables::kEpt;
  paging.role = EptCpuRole(options, /*as_id=*/0);
  paging.root_role = ShadowEptRootRole(paging.role);
  paging.hardware = PermissionTable::ForEpt();
  return paging;
}

ShadowPaging ShadowPaging::OfNpt(const GuestPagingState& l1, Level tdp_level) {
  ShadowPaging paging;
  paging.tables = GuestTables::kNpt;
  paging.role = NptCpuRole(l1);
  paging.root_role = ShadowNptRootRole(paging.role, tdp_level);
  paging.hardware = PermissionTable::ForLegacy(paging.role);
  return paging;
}

ShadowPaging ShadowPaging::OfTdp(const VmCore& vm) {
  ShadowPaging paging;
  paging.role = LegacyCpuRole({});
  paging.root_role = TdpRootRole(
      vm.tdp.options().root_level,
      vm.tdp.format().has_ad() ? AdBits::kEnabled : AdBits::kDisabled, {});
  paging.hardware = vm.config.format == EntryFormat::kEpt
                        ? PermissionTable::ForEpt()
                        : PermissionTable::ForLegacy(NptCpuRole({}));
  return paging;
}

ShadowVcpu::ShadowVcpu(VmCore& vm, Vcpu& vcpu)
    : vm_(vm),
      vcpu_(vcpu),
      memory_(vm.slots, /*as_id=*/0, vcpu.dirty_ring()),
      caches_(vm.shadow->pools()),
      roots_(vm.shadow->RootParts()) {
  SetPaging(vm.config.mmu == MmuMode::kTdpShadow ? ShadowPaging::OfTdp(vm)
                                                 : ShadowPaging::OfGuest({}));
}

ShadowVcpu::~ShadowVcpu() { ReleaseRoots(); }

void ShadowVcpu::SetPaging(const ShadowPaging& paging) {
  MMU_CHECK(paging.role.base().as_id() == 0);  // it sees the normal memslots
  if (guest_.has_value() && paging.tables == paging_.tables &&
      paging.role == paging_.role && paging.root_role == paging_.root_role) {
    return;
  }
  ReleaseRoots();
  paging_ = paging;
  walker_ = paging.role.guest_level() == 0
                ? GuestWalker()
                : GuestWalker(paging.tables, paging.role, CpuidOf(vm_));
  guest_.emplace(GuestContext{.walker = walker_,
                              .memory = memory_,
                              .root_role = paging.root_role,
                              .caches = caches_,
                              .ring = vcpu_.dirty_ring()});
}

int ShadowVcpu::max_phys_bits() const { return CpuidOf(vm_).max_phys_bits; }

void ShadowVcpu::SetRoot(const GuestRoot& root, Flush flush) {
  // The same tables again without a flush request: the cached translations
  // stay.
  if (flush == Flush::kNo && roots_.table() != nullptr && root == where_) {
    return;
  }
  where_ = root;
  tlb_.FlushAll();
  const bool kept = roots_.SwitchTo(*guest_, root, nullptr);
  if (flush == Flush::kNo) return;
  vcpu_.stats().tlb_flush.Add();
  if (kept) roots_.Sync(*guest_, nullptr);
}

void ShadowVcpu::InvalidatePage(uint64_t address) {
  vcpu_.stats().invlpg.Add();
  const uint64_t translated = Translated(address, paging_);
  roots_.InvalidateAddress(*guest_, translated, nullptr);
  tlb_.FlushPage(PageNumberOf(translated));
}

void ShadowVcpu::InvalidateAll() {
  vcpu_.stats().tlb_flush.Add();
  // A root that is loaded anew is synchronised.
  ReleaseRoots();
}

void ShadowVcpu::FreeObsoleteRoots() {
  roots_.FreeObsolete(nullptr);
  if (roots_.table() == nullptr) tlb_.FlushAll();
}

void ShadowVcpu::ReleaseRoots() {
  roots_.FreeAll(nullptr);
  tlb_.FlushAll();
}

absl::Status ShadowVcpu::LoadRoot() {
  tlb_.FlushAll();
  if (absl::Status s = vm_.PrepareForShadowRoot(); !s.ok()) return s;
  if (absl::Status s = roots_.Load(*guest_, where_, nullptr); !s.ok()) return s;
  vm_.tlb.CountVcpuFlush(MmuKind::kShadow, FlushReason::kRoot);
  return absl::OkStatus();
}

void ShadowVcpu::Perform(const TlbEntry& entry, uint64_t address,
                         int size_bytes, AccessKind kind, uint64_t* word) {
  if (entry.host == nullptr) {
    if (kind != AccessKind::kWrite) *word = 0;
    return;
  }
  // Word-wise relaxed atomics, as in Vcpu::Perform.
  std::byte* const at =
      entry.host + (address - (entry.base_page.value() << kPageShift));
  if (size_bytes == 8) {
    std::atomic_ref<uint64_t> memory(*reinterpret_cast<uint64_t*>(at));
    if (kind == AccessKind::kWrite) {
      memory.store(*word, std::memory_order_relaxed);
    } else {
      *word = memory.load(std::memory_order_relaxed);
    }
    return;
  }
  std::atomic_ref<uint32_t> memory(*reinterpret_cast<uint32_t*>(at));
  if (kind == AccessKind::kWrite) {
    memory.store(static_cast<uint32_t>(*word), std::memory_order_relaxed);
  } else {
    *word = memory.load(std::memory_order_relaxed);
  }
}

// An access of a vCPU that runs on shadow pages.
class ShadowVcpu::ShadowAccess {
 public:
  ShadowAccess(ShadowVcpu& shadow, uint64_t linear_address, int size_bytes,
               const GuestPageAccess& access, uint64_t* word, GuestFault* fault)
      : shadow_(shadow),
        parts_{.format = shadow.paging_.root_role.ad_disabled()
                             ? shadow.vm_.shadow->parts().format_without_ad
                             : shadow.vm_.shadow->parts().format,
               .mmio = shadow.vm_.mmio,
               .memory = shadow.vm_.memory,
               .permissions = shadow.paging_.hardware},
        address_(Translated(linear_address, shadow.paging_)),
        in_tables_(address_ >> AddressBits(shadow.paging_) == 0),
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
    return ShadowWalk(parts_, shadow_.roots_, page(), access_);
  }
  void Insert(const TlbEntry& entry) { shadow_.tlb_.Insert(entry); }
  void AfterWalk() {}

  FaultStep Fault(const WalkResult& walk) {
    // As on the TDP MMU: the fault makes the processor drop the translation.
    if (walk.kind == WalkResult::Kind::kNotAllowed) {
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
  MMU_DCHECK((size_bytes == 4 || size_bytes == 8) &&
             address % static_cast<uint64_t>(size_bytes) == 0);
  vcpu_.stats().accesses.Add();
  if (access.kind == AccessKind::kWrite) vcpu_.stats().writes.Add();
  return RunAccess(
      vm_, vcpu_,
      ShadowAccess(*this, address, size_bytes, access, word, fault));
}

}  // namespace mmu
