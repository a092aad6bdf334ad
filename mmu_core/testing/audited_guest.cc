#include "mmu_core/testing/audited_guest.h"

#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

// L1's pages are far behind those that its hypervisor uses; a program's pages
// begin where programs do.
constexpr uint64_t kL1Pages = uint64_t{48} << 20;
constexpr uint64_t kProgram = 0x400000;

// What the guest writes to its page: nothing else in its memory looks so.
constexpr uint64_t WordOf(uint64_t page) {
  return uint64_t{0xa0d17} << 20 | page;
}

}  // namespace

const char* NameOf(AuditedMmu mmu) {
  switch (mmu) {
    case AuditedMmu::kTdp:
      return "Tdp";
    case AuditedMmu::kTdpShadow:
      return "TdpShadow";
    case AuditedMmu::kShadow:
      return "Shadow";
    case AuditedMmu::kNestedL1:
      return "NestedL1";
    case AuditedMmu::kNestedL2:
      return "NestedL2";
    case AuditedMmu::kNestedL2WithoutAd:
      return "NestedL2WithoutAd";
  }
  return "invalid";
}

std::ostream& operator<<(std::ostream& os, AuditedMmu mmu) {
  return os << NameOf(mmu);
}

VmConfig AuditedGuest::ConfigFor(AuditedMmu mmu) {
  VmConfig config;
  config.memslots = {Slot(0, 0, kBytes)};
  switch (mmu) {
    case AuditedMmu::kTdp:
      break;
    case AuditedMmu::kTdpShadow:
      config.mmu = MmuMode::kTdpShadow;
      break;
    case AuditedMmu::kShadow:
      config.mmu = MmuMode::kShadow;
      config.format = EntryFormat::kNpt;
      break;
    case AuditedMmu::kNestedL1:
    case AuditedMmu::kNestedL2:
    case AuditedMmu::kNestedL2WithoutAd:
      config.mmu = MmuMode::kNested;
      break;
  }
  return config;
}

AuditedGuest::AuditedGuest(AuditedMmu mmu, const VmConfig& config,
                           NxParameters& nx_parameters)
    : mmu_(mmu), vm_(MakeVmFrom(config, nx_parameters)) {
  const bool huge = config.memslots[0].host_page_level > Level::k4K;
  Vcpu& vcpu = *state().vcpus[0];
  if (config.mmu == MmuMode::kShadow) {
    cpu_ = std::make_unique<GuestProcessor>(vcpu);
    kernel_ = std::make_unique<GuestKernel>(
        *cpu_, vm_->GuestSpace(),
        GuestKernelOptions{.large_pages =
                               huge ? GuestKernelOptions::LargePages::kYes
                                    : GuestKernelOptions::LargePages::kNo});
    MMU_CHECK(kernel_->Boot().ok());
  } else if (config.mmu == MmuMode::kNested) {
    l1_cpu_ = std::make_unique<L1Processor>(vcpu, Level::k512G);
    l1_ = std::make_unique<L1Hypervisor>(
        *l1_cpu_, vm_->GuestSpace(),
        L1HypervisorOptions{.ad_bits = mmu != AuditedMmu::kNestedL2WithoutAd,
                            .max_page = huge ? Level::k2M : Level::k4K});
    MMU_CHECK(l1_->Boot().ok());
    // Both MMUs are in use, whichever is under test.
    uint64_t word = 1;
    MMU_CHECK(l1_->Access(Gpa(0), AccessKind::kWrite, &word).ok());
  }
  for (uint64_t page = 0; page < 8; ++page) Write(page);
}

MmuKind AuditedGuest::kind() const {
  return mmu_ == AuditedMmu::kTdp || mmu_ == AuditedMmu::kNestedL1
             ? MmuKind::kTdp
             : MmuKind::kShadow;
}

const SpteFormat& AuditedGuest::format() {
  if (kind() == MmuKind::kTdp) return state().tdp.format();
  const ShadowParts& parts = state().shadow->parts();
  return mmu_ == AuditedMmu::kNestedL2WithoutAd ? parts.format_without_ad
                                                : parts.format;
}

void AuditedGuest::Access(uint64_t page, AccessKind kind) {
  uint64_t word = WordOf(page);
  const uint64_t offset = page << kPageShift;
  switch (mmu_) {
    case AuditedMmu::kShadow:
      MMU_CHECK(kernel_->Access(Gva(kProgram + offset), kind, &word).ok());
      return;
    case AuditedMmu::kNestedL2:
    case AuditedMmu::kNestedL2WithoutAd:
      MMU_CHECK(l1_->Access(Gpa(offset), kind, &word).ok());
      return;
    case AuditedMmu::kTdp:
    case AuditedMmu::kTdpShadow:
    case AuditedMmu::kNestedL1:
      MMU_CHECK(state().vcpus[0]->Access(Gpa(kL1Pages + offset), kind, &word) ==
                AccessOutcome::kDone);
      return;
  }
}

std::vector<LeafPlace> AuditedGuest::WritableLeafs() {
  return kind() == MmuKind::kTdp ? TdpLeafs() : ShadowLeafs();
}

std::vector<LeafPlace> AuditedGuest::WritableLeafsOf(Gfn gfn) {
  std::vector<LeafPlace> leafs = WritableLeafs();
  std::erase_if(leafs,
                [gfn](const LeafPlace& leaf) { return leaf.gfn != gfn; });
  return leafs;
}

Gfn AuditedGuest::GfnOf(uint64_t page) {
  RcuReadGuard rcu;
  for (const LeafPlace& leaf : WritableLeafs()) {
    const Memslot& slot = *state().slots.Active(0).FindByGfn(leaf.gfn);
    const auto* const word = reinterpret_cast<const uint64_t*>(
        slot.backing->PointerTo(slot.HvaOf(leaf.gfn)));
    if (*word == WordOf(page)) return leaf.gfn;
  }
  MMU_CHECK(!"a leaf maps the page");
  __builtin_unreachable();
}

std::vector<LeafPlace> AuditedGuest::TdpLeafs() {
  std::vector<LeafPlace> leafs;
  RcuReadGuard rcu;
  const TdpRoot& root = *state().tdp.roots().FirstRcu(RootFilter::kValid, 0);
  for (TdpCursor c(root.table(), root.level(),
                   GfnRange::Of(Gfn(0), kBytes >> kPageShift), Level::k4K);
       c.Valid(); c.Next()) {
    if (c.level() != Level::k4K || !c.IsPresentLeaf()) continue;
    if (!format().IsMmuWritable(c.old_spte())) continue;
    leafs.push_back({.slot = &c.slot(),
                     .page = TablePool::DescriptorOf(TableHolding(c.slot())),
                     .index = IndexInTable(c.slot()),
                     .gfn = c.gfn()});
  }
  return leafs;
}

std::vector<LeafPlace> AuditedGuest::ShadowLeafs() {
  std::vector<LeafPlace> leafs;
  const ShadowPageSet& pages = state().shadow->pages().set();
  for (const ShadowPageState* page = pages.active().oldest(); page != nullptr;
       page = page->newer) {
    if (page->level() != Level::k4K) continue;
    for (int i = 0; i < kEntriesPerTable; ++i) {
      SpteSlot& slot = page->EntryAt(i);
      const Spte spte = slot.Load();
      if (!spte.IsPresent() || !format().IsMmuWritable(spte)) continue;
      leafs.push_back({.slot = &slot,
                       .page = page->page,
                       .index = i,
                       .gfn = page->TranslationOf(i).gfn});
    }
  }
  return leafs;
}

}  // namespace mmu::testing
