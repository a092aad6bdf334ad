#include "mmu_core/vm/core/vm_core.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/shadow/shadow_slot_ops.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/tdp/tdp_slot_ops.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

// The limit of the host's addresses (TRM-06) and of the root: four levels
// address 48 bits.
uint64_t MaxGfn(const VmConfig& config) {
  const int address_bits =
      std::min(HostAddressBits(config), config.root_levels == 5 ? 57 : 48);
  return (uint64_t{1} << (address_bits - kPageShift)) - 1;
}

const SpteFormat& FormatOf(const VmConfig& config) {
  if (config.format == EntryFormat::kNpt) return SpteFormat::Npt();
  return HasAdBits(config) ? SpteFormat::Ept() : SpteFormat::EptWithoutAd();
}

std::unique_ptr<ShadowMmu> MakeShadowMmu(VmCore& vm) {
  if (!HasShadowPages(vm.config)) return nullptr;
  const SpteFormat& format = FormatOf(vm.config);
  return std::make_unique<ShadowMmu>(
      ShadowParts{.format = format,
                  .format_without_ad = vm.config.format == EntryFormat::kEpt
                                           ? SpteFormat::EptWithoutAd()
                                           : format,
                  .vm = vm.shadow_hooks,
                  .tlb = vm.tlb.Of(MmuKind::kShadow),
                  .counters = vm.counters.of(MmuKind::kShadow)},
      vm.mmu_lock, ShadowPools::Process(),
      ShadowMmu::Options{
          .tdp = vm.config.mmu == MmuMode::kNested ? TdpEnabled::kYes
                                                   : TdpEnabled::kNo,
          .max_page_level = vm.config.max_page_level,
          .nested_dirty_tracking = vm.config.pml == VmConfig::Pml::kYes
                                       ? DirtyTracking::kWriteProtect
                                       : DirtyTracking::kOfFormat,
          .nx_huge_pages = &vm.nx_huge_pages,
          .invalidations = &vm.invalidations});
}

}  // namespace

VmCore::VmCore(const VmConfig& vm_config, TablePool& table_pool)
    : config(vm_config),
      pool(table_pool),
      tlb(guest_mmu()),
      shadow_roots(RunsOnTdp(vm_config) ? ShadowRootGate::TdpMmu::kEnabled
                                        : ShadowRootGate::TdpMmu::kDisabled),
      slots(
          {.max_gfn = MaxGfn(vm_config),
           .address_spaces = 2,
           .invalidations = &invalidations,
           .shadow_roots = HasShadowPages(vm_config) ? &shadow_roots : nullptr,
           .bitmaps = vm_config.dirty_ring_entries == 0 ||
                              vm_config.companion_bitmap ==
                                  VmConfig::CompanionBitmap::kYes
                          ? MemslotTableOptions::Bitmaps::kYes
                          : MemslotTableOptions::Bitmaps::kNo}),
      mmio(vm_config.format == EntryFormat::kEpt ? MmioFormat::Kind::kEpt
                                                 : MmioFormat::Kind::kNpt,
           HostAddressBits(vm_config)),
      shadow_hooks(slots, mmus),
      shadow(MakeShadowMmu(*this)),
      tdp({.format = FormatOf(vm_config),
           .lock = mmu_lock,
           .tlb = tlb.Of(MmuKind::kTdp),
           .pool = table_pool,
           .counters = counters.of(MmuKind::kTdp),
           .invalidations = invalidations,
           .nx_huge_pages = nx_huge_pages,
           .write_gate = shadow != nullptr ? &shadow->gate() : nullptr},
          {.root_level = RootLevel(vm_config),
           .max_page_level = vm_config.max_page_level}),
      operation_tables(table_pool) {
  // The only place that says which MMUs a VM has.
  if (RunsOnTdp(vm_config)) {
    mmus.Add(std::make_unique<TdpSlotOps>(
        TdpSlotOps::Parts{.tdp = tdp,
                          .mmu_lock = mmu_lock,
                          .slots_lock = slots.slots_lock,
                          .tables = operation_tables,
                          .counters = counters.of(MmuKind::kTdp),
                          .nx_huge_pages = nx_huge_pages.of(MmuKind::kTdp)}));
  }
  if (shadow != nullptr) {
    mmus.Add(std::make_unique<ShadowSlotOps>(ShadowSlotOps::Parts{
        .shadow = *shadow,
        .mmu_lock = mmu_lock,
        .slots_lock = slots.slots_lock,
        .tlb = tlb,
        .nx_huge_pages = nx_huge_pages.of(MmuKind::kShadow),
        .guest = RunsOnTdp(vm_config) ? ShadowSlotOps::Guest::kOnTdp
                                      : ShadowSlotOps::Guest::kOnShadow}));
    if (vm_config.shadow_page_limit != 0) {
      MmuWriteLocked lock(mmu_lock, LockOp::kMemslot);
      shadow->pages().SetLimit(lock, vm_config.shadow_page_limit, nullptr);
    }
  }
  {
    MutexLock lock(slots.slots_lock);
    reset_windows.reserve(vm_config.dirty_ring_entries);
  }
}

absl::Status VmCore::PrepareForShadowRoot() {
  RcuReadGuard rcu;
  return WithMemory("", "look for the memslots of a shadow root", [&] {
    return shadow_roots.BeforeShadowRoot([this] {
      std::vector<LazySlotRmaps*> all;
      for (int as_id = 0; as_id < slots.address_spaces(); ++as_id) {
        for (const Memslot* slot : slots.Active(as_id).slots()) {
          all.push_back(slot->rmaps.get());
        }
      }
      return all;
    });
  });
}

int64_t VmCore::StallNanos() const {
  int64_t sum = 0;
  for (const VcpuStats* vcpu : vcpu_stats) sum += vcpu->StallNanos();
  return sum;
}

}  // namespace mmu
