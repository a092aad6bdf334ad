#include "mmu_core/vm/core/vm_core.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
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

// The configuration of a VM. Where a guest on stage-2 tables has no choice, it
// says what such a guest has.
VmConfig WithFixedOptions(VmConfig config) {
  if (RunsOnStage2(config)) {
    // KVM has the choice on x86 only.
    config.slot_zap = VmConfig::SlotZap::kSlot;
    // The erratum is one of x86 processors.
    config.nx_huge_pages = VmConfig::NxHugePages::kOptOut;
  }
  return config;
}

// The limit of the host's addresses (TRM-06) and of the root: four levels
// address 48 bits.
uint64_t MaxGfn(const VmConfig& config) {
  if (RunsOnStage2(config)) {
    return (uint64_t{1} << (config.stage2.ipa_bits - kPageShift)) - 1;
  }
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

std::optional<TlbiUnit> MakeTlbi(const VmConfig& config) {
  if (!RunsOnStage2(config)) return std::nullopt;
  return std::optional<TlbiUnit>(
      std::in_place, std::countr_zero(config.stage2.granule_bytes),
      config.stage2.tlbi_range == Stage2Config::TlbiRange::kYes
          ? TlbiUnit::Ranges::kYes
          : TlbiUnit::Ranges::kNo);
}

// REQUIRES: the configuration was checked.
Stage2Options Stage2OptionsOf(const VmConfig& config) {
  const Stage2Config& stage2 = config.stage2;
  Stage2Options options;
  WithGranule(stage2.granule_bytes, [&]<typename G>() {
    options.shape =
        stage2.start_level.has_value()
            ? *ShapeFrom<G>(stage2.ipa_bits, FromArmLevel(*stage2.start_level))
            : ShapeOf<G>(stage2.ipa_bits);
    options.max_leaf_level = std::min(
        {G::kMaxLeafLevel, options.shape.start_level, config.max_page_level});
  });
  options.bbm = stage2.bbm_level == 2 ? BbmLevel::k2 : BbmLevel::k0;
  options.tlbi_range = stage2.tlbi_range == Stage2Config::TlbiRange::kYes
                           ? TlbiUnit::Ranges::kYes
                           : TlbiUnit::Ranges::kNo;
  options.hardware_access_flag =
      stage2.access_flag == Stage2Config::AccessFlag::kByHardware
          ? Stage2Options::HardwareAccessFlag::kYes
          : Stage2Options::HardwareAccessFlag::kNo;
  options.hardware_dirty_state =
      stage2.dirty_state == Stage2Config::DirtyState::kByHardware
          ? Stage2Options::HardwareDirtyState::kYes
          : Stage2Options::HardwareDirtyState::kNo;
  return options;
}

}  // namespace

VmCore::VmCore(const VmConfig& vm_config, TablePool& table_pool)
    : config(WithFixedOptions(vm_config)),
      pool(table_pool),
      tlbi(MakeTlbi(vm_config)),
      tlb(guest_mmu(), tlbi.has_value() ? &*tlbi : nullptr),
      shadow_roots(RunsOnTdp(vm_config) ? ShadowRootGate::TdpMmu::kEnabled
                                        : ShadowRootGate::TdpMmu::kDisabled),
      slots(
          {.max_gfn = MaxGfn(vm_config),
           .errno_above_max_gfn = RunsOnStage2(vm_config) ? EFAULT : EINVAL,
           .host_page_bytes = HostPageBytes(vm_config),
           // SMM is x86's.
           .address_spaces = RunsOnStage2(vm_config) ? 1 : 2,
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
  if (RunsOnStage2(vm_config)) {
    absl::StatusOr<std::unique_ptr<Stage2>> made = Stage2::Create(
        Stage2Parts{.lock = mmu_lock,
                    .tlb = tlb.Of(MmuKind::kStage2),
                    .counters = counters.of(MmuKind::kStage2),
                    .invalidations = invalidations},
        vm_config.stage2.granule_bytes, Stage2OptionsOf(vm_config),
        vm_config.stage2.eager_split_chunk_bytes);
    stage2_status = made.status();
    if (made.ok()) stage2 = *std::move(made);
  }
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
  if (stage2 != nullptr) mmus.Add(stage2->MakeSlotOps(slots));
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
