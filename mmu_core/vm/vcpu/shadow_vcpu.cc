#include "mmu_core/vm/vcpu/shadow_vcpu.h"

#include <atomic>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/shadow_fault.h"
#include "mmu_core/vm/vcpu/shadow_walk.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

GuestCpuid CpuidOf(const VmCore& vm) {
  return {.max_phys_bits = HostAddressBits(vm.config), .has_1g_pages = true};
}

}  // namespace

bool ShadowPaging::IsLinear() const {
  return tables == GuestTables::kLegacy &&
         (role.guest_level() != 0 || root_role.level_number() < 4);
}

int ShadowPaging::AddressBits() const {
  if (IsLinear() && role.guest_level() < 4) return 32;
  return kPageShift + kEntryBits * root_role.level_number();
}

uint64_t ShadowPaging::Translated(uint64_t address) const {
  if (!IsLinear()) return address;
  return address & ((uint64_t{1} << AddressBits()) - 1);
}

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

ShadowPaging ShadowPaging::OfTdp(const VmConfig& config) {
  ShadowPaging paging;
  paging.role = LegacyCpuRole({});
  paging.root_role =
      TdpRootRole(RootLevel(config),
                  HasAdBits(config) ? AdBits::kEnabled : AdBits::kDisabled, {});
  paging.hardware = config.format == EntryFormat::kEpt
                        ? PermissionTable::ForEpt()
                        : PermissionTable::ForLegacy(NptCpuRole({}));
  return paging;
}

ShadowVcpu::ShadowVcpu(VmCore& vm, Vcpu& vcpu)
    : vm_(vm),
      vcpu_(vcpu),
      tlb_(TlbOf(vm, vcpu.index(), MmuKind::kShadow)),
      memory_(vm.slots, /*as_id=*/0, vcpu.dirty_ring()),
      caches_(vm.shadow->pools()),
      roots_(vm.shadow->RootParts()) {
  SetPaging(vm.config.mmu == MmuMode::kTdpShadow
                ? ShadowPaging::OfTdp(vm.config)
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
  const ShadowParts& parts = vm_.shadow->parts();
  format_ =
      paging.root_role.ad_disabled() ? &parts.format_without_ad : &parts.format;
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

std::optional<TlbTag> ShadowVcpu::NamedTag() const {
  if (paging_.IsLinear()) return TlbTag::OfPcid(where_.pcid);
  if (roots_.table() == nullptr) return std::nullopt;
  return TlbTag::OfRoot(*roots_.table());
}

void ShadowVcpu::SelectContext() {
  if (roots_.table() == nullptr) {
    tlb_.SelectNone();
  } else {
    tlb_.Select(TagOf(*roots_.table(), where_.pcid));
  }
}

void ShadowVcpu::SetRoot(const GuestRoot& root, Flush flush) {
  // The same tables again without a flush request: nothing changes.
  if (flush == Flush::kNo && roots_.table() != nullptr && root == where_) {
    return;
  }
  where_ = root;
  const bool kept = roots_.SwitchTo(*guest_, root, nullptr);
  SelectContext();
  if (flush == Flush::kYes) {
    vcpu_.stats().tlb_flush.Add();
    if (const auto tag = NamedTag()) tlb_.FlushContext(*tag);
    roots_.MustSync(root.pcid);
  }
  // A root that is loaded anew is flushed and synchronised.
  if (kept && (flush == Flush::kYes || roots_.current_must_sync())) {
    roots_.Sync(*guest_, nullptr);
  }
}

void ShadowVcpu::InvalidatePage(uint64_t address) {
  vcpu_.stats().invlpg.Add();
  const uint64_t translated = paging_.Translated(address);
  roots_.InvalidateAddress(*guest_, translated, nullptr);
  if (const auto tag = NamedTag()) {
    tlb_.Invlpg(*tag, PageNumberOf(translated));
  }
}

void ShadowVcpu::InvalidatePageOf(uint16_t pcid, uint64_t address) {
  MMU_DCHECK(paging_.IsLinear());
  vcpu_.stats().invlpg.Add();
  const uint64_t translated = paging_.Translated(address);
  roots_.InvalidateAddressOf(*guest_, pcid, translated, nullptr);
  tlb_.InvalidatePage(TlbTag::OfPcid(pcid), PageNumberOf(translated));
}

void ShadowVcpu::InvalidatePcid(uint16_t pcid) {
  MMU_DCHECK(paging_.IsLinear());
  vcpu_.stats().tlb_flush.Add();
  tlb_.FlushContext(TlbTag::OfPcid(pcid));
  roots_.MustSync(pcid);
  if (where_.pcid == pcid && roots_.table() != nullptr) {
    roots_.Sync(*guest_, nullptr);
  }
}

void ShadowVcpu::InvalidateRoot(Gfn table) {
  vcpu_.stats().tlb_flush.Add();
  // A root that is loaded anew is flushed and synchronised.
  roots_.FreeOf(table, nullptr);
  SelectContext();
}

void ShadowVcpu::InvalidateAll() {
  vcpu_.stats().tlb_flush.Add();
  ReleaseRoots();
  tlb_.FlushAll();
}

void ShadowVcpu::FreeObsoleteRoots() {
  roots_.FreeObsolete(nullptr);
  SelectContext();
}

void ShadowVcpu::ReleaseRoots() {
  roots_.FreeAll(nullptr);
  SelectContext();
}

absl::Status ShadowVcpu::LoadRoot() {
  tlb_.SelectNone();
  if (absl::Status s = vm_.PrepareForShadowRoot(); !s.ok()) return s;
  if (absl::Status s = roots_.Load(*guest_, where_, nullptr); !s.ok()) return s;
  // The table may have been a root before, of which translations are left; so
  // may the PCID (TLB-04).
  SelectContext();
  tlb_.FlushContext(TagOf(*roots_.table(), where_.pcid));
  vm_.tlb.CountVcpuFlush(MmuKind::kShadow, FlushReason::kRoot);
  return absl::OkStatus();
}

void ShadowVcpu::AddAuditedTlbs(const PendingFlushes& pending,
                                bool frees_obsolete,
                                std::vector<AuditedTlb>& tlbs) const {
  const auto add = [&](const PageTable& table, Level level, uint64_t id,
                       uint16_t pcid) {
    tlbs.push_back({.tlb = tlb_,
                    .mmu = MmuKind::kShadow,
                    .pending = pending,
                    .tag = TagOf(table, pcid),
                    .root_id = id,
                    .table = table,
                    .level = level,
                    .format = *format_,
                    .pages = pages()});
  };
  if (roots_.table() != nullptr && !(frees_obsolete && roots_.IsObsolete())) {
    add(*roots_.table(), roots_.level(), roots_.id(), where_.pcid);
  }
  for (const ShadowRoots::Kept& kept : roots_.KeptRoots()) {
    add(kept.table, kept.level, kept.id, kept.pcid);
  }
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

}  // namespace mmu
