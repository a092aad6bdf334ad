#include "mmu_core/testing/vm_builder.h"

#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stage2/any_granule.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/sync/rcu.h"

namespace mmu::testing {
namespace {

std::string FlagsOf(const SpteFormat& format, Spte spte) {
  std::string flags;
  if (format.Allows(spte, AccessKind::kRead)) flags += 'r';
  if (spte.IsWritable()) {
    flags += 'w';
  } else if (format.IsMmuWritable(spte)) {
    flags += 'm';
  }
  if (format.IsAccessed(spte)) flags += 'a';
  if (format.IsDirty(spte)) flags += 'd';
  return flags;
}

GfnRange Everything() { return {Gfn(0), Gfn(uint64_t{1} << 40)}; }

template <typename Fn>
void ForEachLeaf(const VmState& vm, GfnRange range, Fn fn) {
  RcuReadGuard rcu;
  for (TdpRoot* root = vm.tdp.roots().FirstRcu(RootFilter::kValid, 0);
       root != nullptr;
       root = vm.tdp.roots().NextRcu(root, RootFilter::kValid, 0)) {
    for (TdpCursor c(root->table(), root->level(), range, Level::k4K);
         c.Valid(); c.Next()) {
      if (c.IsPresentLeaf()) fn(c.gfn(), c.level(), c.old_spte());
    }
  }
}

}  // namespace

std::ostream& operator<<(std::ostream& os, const Mapping& m) {
  return os << "{0x" << std::hex << m.gfn << std::dec << ", "
            << PageSizeName(m.level) << ", " << m.flags << "}";
}

std::vector<Mapping> AllMappings(const VmState& vm) {
  std::vector<Mapping> all;
  ForEachLeaf(vm, Everything(), [&](Gfn gfn, Level level, Spte spte) {
    all.push_back({gfn.value(), level, FlagsOf(vm.tdp.format(), spte)});
  });
  return all;
}

Level LevelOf(const VmState& vm, Gfn gfn) {
  Level found = Level::k256T;
  if (vm.stage2 != nullptr) {
    WithGranule(vm.config.stage2.granule_bytes, [&]<typename G>() {
      RcuReadGuard rcu;
      for (S2Cursor<G> c =
               vm.stage2->of<G>().CursorOver(GfnRange::Of(gfn, 1), Level{1});
           c.Valid(); c.Next()) {
        if (c.IsPresentLeaf()) found = c.level();
      }
    });
    return found;
  }
  ForEachLeaf(vm, GfnRange::Of(gfn, 1),
              [&](Gfn, Level level, Spte) { found = level; });
  return found;
}

Spte SpteOf(const VmState& vm, Gfn gfn) {
  Spte found;
  ForEachLeaf(vm, GfnRange::Of(gfn, 1),
              [&](Gfn, Level, Spte spte) { found = spte; });
  return found;
}

MemslotConfig Slot(uint32_t id, uint64_t gpa_bytes, uint64_t size_bytes,
                   Level host_page_level, BackingKind backing) {
  MemslotConfig config;
  config.slot = id;
  config.gpa = Gpa(gpa_bytes);
  config.size_bytes = size_bytes;
  config.host_page_level = host_page_level;
  config.backing = backing;
  return config;
}

std::unique_ptr<Vm> MakeVm(std::vector<MemslotConfig> slots, int vcpu_count,
                           EntryFormat format) {
  VmConfig config;
  config.format = format;
  config.vcpu_count = vcpu_count;
  config.memslots = std::move(slots);
  return MakeVmFrom(config);
}

std::unique_ptr<Vm> MakePmlVm(std::vector<MemslotConfig> slots, int vcpu_count,
                              uint32_t ring_entries) {
  VmConfig config;
  config.vcpu_count = vcpu_count;
  config.pml = VmConfig::Pml::kYes;
  config.dirty_ring_entries = ring_entries;
  config.memslots = std::move(slots);
  return MakeVmFrom(config);
}

std::unique_ptr<Vm> MakeRingVm(std::vector<MemslotConfig> slots,
                               uint32_t ring_entries, int vcpu_count) {
  VmConfig config;
  config.vcpu_count = vcpu_count;
  config.dirty_ring_entries = ring_entries;
  config.memslots = std::move(slots);
  return MakeVmFrom(config);
}

TlbOptions PreciseTlbs() {
  return {.flushes = TlbOptions::Flushes::kPrecise,
          .evictions = TlbOptions::Evictions::kNever};
}

std::unique_ptr<Vm> MakeVmFrom(const VmConfig& config,
                               NxParameters& nx_parameters) {
  VmConfig tested = config;
  if (tested.tlb == TlbOptions()) tested.tlb = PreciseTlbs();
  absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(tested, nx_parameters);
  if (!vm.ok()) std::cerr << vm.status() << "\n";
  MMU_CHECK(vm.ok());
  return *std::move(vm);
}

AccessOutcome Read(Vm& vm, uint64_t gpa_bytes, int vcpu) {
  uint64_t word = 0;
  return vm.state().vcpus[vcpu]->Access(Gpa(gpa_bytes), AccessKind::kRead,
                                        &word);
}

AccessOutcome Exec(Vm& vm, uint64_t gpa_bytes, int vcpu) {
  uint64_t word = 0;
  return vm.state().vcpus[vcpu]->Access(Gpa(gpa_bytes), AccessKind::kExec,
                                        &word);
}

AccessOutcome Write(Vm& vm, uint64_t gpa_bytes, uint64_t value, int vcpu) {
  return vm.state().vcpus[vcpu]->Access(Gpa(gpa_bytes), AccessKind::kWrite,
                                        &value);
}

uint64_t ReadValue(Vm& vm, uint64_t gpa_bytes, int vcpu) {
  uint64_t word = 0;
  MMU_CHECK(vm.state().vcpus[vcpu]->Access(Gpa(gpa_bytes), AccessKind::kRead,
                                           &word) == AccessOutcome::kDone);
  return word;
}

void Touch(Vm& vm, GfnRange range, AccessKind kind, int vcpu) {
  for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
    uint64_t word = gfn.value() + 1;
    MMU_CHECK(vm.state().vcpus[vcpu]->Access(ToGpa(gfn), kind, &word) ==
              AccessOutcome::kDone);
  }
}

std::vector<uint64_t> PagesOf(absl::Span<const uint64_t> words) {
  std::vector<uint64_t> pages;
  for (size_t i = 0; i < words.size(); ++i) {
    for (const uint64_t bit : SetBitsOf(words[i])) {
      pages.push_back(kWordBits * i + bit);
    }
  }
  return pages;
}

std::vector<uint64_t> MaskOf(uint64_t npages,
                             const std::vector<uint64_t>& pages) {
  std::vector<uint64_t> words(WordsFor(npages));
  for (const uint64_t page : pages) words[page / kWordBits] |= BitOf(page);
  return words;
}

std::string AuditFindings(Vm& vm) {
  return absl::StrJoin(vm.Audit().violations, "\n");
}

WaitTime& RingFullWaitOf(Vm& vm, int vcpu) {
  return vm.state().vcpus[static_cast<size_t>(vcpu)]->stats().ring_full_wait;
}

}  // namespace mmu::testing
