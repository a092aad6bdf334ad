#include "mmu_core/testing/aged_guest.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/leaf_list.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kL2Bytes = 8 * kMiB;

// The pages around `gfn` that a fault on it can map: those of the tables of its
// leafs before and afterwards. No leaf reaches over their ends.
GfnRange PagesAround(Gfn gfn, GfnRange before, GfnRange after) {
  for (const Level level : {Level::k2M, Level::k1G}) {
    const GfnRange block = GfnRange::Of(RoundDown(gfn, level), PagesPer(level));
    if (block.Contains(before) && block.Contains(after)) return block;
  }
  MMU_CHECK(false);
}

}  // namespace

std::vector<MemslotConfig> AgedMemory() {
  return {Slot(0, 0, 24 * kMiB), Slot(1, 24 * kMiB, 24 * kMiB, Level::k2M),
          Slot(2, kGiB - 4 * kMiB, 8 * kMiB, Level::k2M),
          Slot(3, 2 * kGiB, kGiB, Level::k1G, BackingKind::kMetadataOnly)};
}

GfnRange AgedGuest::RangeOf(const MemslotConfig& slot) {
  return GfnRange::Of(ToGfn(slot.gpa), slot.size_bytes >> kPageShift);
}

AgedGuest::AgedGuest(const VmConfig& config)
    : slots_(config.memslots),
      there_(slots_.size(), true),
      end_(RangeOf(slots_.back()).end),
      vm_(MakeVmFrom(config)),
      arrays_(ArraysOf(*vm_)),
      model_(end_.value(), arrays_.size()) {
  if (nested()) RunL2();
}

std::vector<AgedGuest::Array> AgedGuest::ArraysOf(const Vm& vm) {
  std::vector<Array> arrays;
  for (const MmuKind kind : vm.MmuKinds()) {
    if (kind != MmuKind::kShadow) {
      arrays.push_back({kind});
      continue;
    }
    for (const Level level : kLeafLevels) {
      arrays.push_back({kind, PagesPer(level)});
    }
  }
  return arrays;
}

bool AgedGuest::AgesFast(MmuKind kind) const {
  switch (kind) {
    case MmuKind::kTdp:
      return true;
    case MmuKind::kShadow:
      return false;
    case MmuKind::kStage2:
      return vm_->config().stage2.access_flag ==
             Stage2Config::AccessFlag::kByHardware;
  }
  return false;
}

std::optional<bool> AgedGuest::IsInUse(MmuKind kind) const {
  if (kind != MmuKind::kShadow || !nested()) return true;
  for (size_t array = 0; array < arrays_.size(); ++array) {
    if (arrays_[array].kind == kind && !model_.Leafs(array).empty()) {
      return true;
    }
  }
  return std::nullopt;
}

std::vector<size_t> AgedGuest::Asked(FastOnly fast_only) const {
  std::vector<size_t> asked;
  for (size_t array = 0; array < arrays_.size(); ++array) {
    if (fast_only == FastOnly::kNo || AgesFast(arrays_[array].kind)) {
      asked.push_back(array);
    }
  }
  return asked;
}

bool AgedGuest::Covers(GfnRange range) const {
  uint64_t pages = 0;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (there_[slot]) pages += range.Intersect(RangeOf(slots_[slot])).pages();
  }
  return pages == range.pages();
}

// L1 gives L2 large pages, and splits the second of them.
void AgedGuest::RunL2() {
  cpu_.emplace(*vm_->state().vcpus[0], Level::k512G);
  l1_.emplace(
      *cpu_,
      vm_->GuestSpace().Slice(20 * kMiB >> kPageShift, 28 * kMiB >> kPageShift),
      L1HypervisorOptions{.tables = GuestTables::kEpt,
                          .ad_bits = HasAdBits(vm_->config()),
                          .max_page = Level::k2M});
  MMU_CHECK(l1_->Boot().ok());
  for (Gpa gpa; gpa.value() < kL2Bytes; gpa += kPageSize) {
    uint64_t word = 1;
    MMU_CHECK(l1_->Access(gpa, AccessKind::kWrite, &word).ok());
    if (gpa.value() == 2 * kMiB) MMU_CHECK(l1_->Demote(gpa).ok());
  }
  for (Gpa gpa; gpa.value() < kL2Bytes; gpa += 7 * kPageSize) {
    l2_pages_.push_back({gpa, l1_->FrameOf(gpa).value()});
  }
  uint64_t word = 0;
  for (const L2Page& page : l2_pages_) {
    MMU_CHECK(l1_->Access(page.nested, AccessKind::kRead, &word).ok());
  }
  FollowAll(AgeModel::NewLeaf::kIsOld);
  for (const MemslotConfig& slot : slots_) {
    MMU_CHECK(vm_->Age(RangeOf(slot), AgeMode::kTestAndClear, nullptr).ok());
  }
  model_.SetAllOld();
}

void AgedGuest::ForgetTranslations() {
  for (const auto& vcpu : vm_->state().vcpus) {
    vcpu->tlb().FlushAll();
    if (vcpu->shadow() != nullptr) vcpu->shadow()->tlb().FlushAll();
    if (vcpu->stage2() != nullptr) vcpu->stage2()->FlushAll();
  }
}

std::vector<GfnRange> AgedGuest::LeafsFor(size_t array, GfnRange range) {
  std::vector<GfnRange> leafs = LeafsOf(*vm_, arrays_[array].kind, range);
  const uint64_t pages = arrays_[array].leaf_pages;
  if (pages != 0) {
    std::erase_if(leafs, [&](GfnRange leaf) { return leaf.pages() != pages; });
  }
  return leafs;
}

void AgedGuest::Follow(size_t array, GfnRange range,
                       AgeModel::NewLeaf new_leaf) {
  model_.SetLeafs(array, range, LeafsFor(array, range), new_leaf);
}

void AgedGuest::FollowAll(AgeModel::NewLeaf new_leaf) {
  for (size_t array = 0; array < arrays_.size(); ++array) {
    Follow(array, {Gfn(0), end_}, new_leaf);
  }
}

// A fault may have mapped more than the page, or replaced other leafs.
void AgedGuest::FollowAccess(MmuKind kind, GfnRange leaf, Gfn gfn) {
  for (size_t array = 0; array < arrays_.size(); ++array) {
    if (arrays_[array].kind != kind) continue;
    Follow(array, PagesAround(gfn, model_.LeafAt(array, gfn), leaf),
           AgeModel::NewLeaf::kIsOld);
    if (model_.LeafAt(array, gfn) == leaf) model_.SetYoung(array, gfn);
  }
}

void AgedGuest::Use(Gfn gfn, AccessKind kind) {
  ForgetTranslations();
  Touch(*vm_, GfnRange::Of(gfn, 1), kind);
  const MmuKind mmu = arrays_[0].kind;
  const std::vector<GfnRange> leafs = LeafsOf(*vm_, mmu, GfnRange::Of(gfn, 1));
  MMU_CHECK(leafs.size() == 1);
  FollowAccess(mmu, leafs[0], gfn);
}

// The translation that L2 has got names the leaf.
void AgedGuest::UseInL2(size_t page, AccessKind kind) {
  ForgetTranslations();
  const L2Page& used = l2_pages_[page];
  uint64_t word = 1;
  MMU_CHECK(l1_->Access(used.nested, kind, &word).ok());
  const TlbEntry* entry = vm_->state().vcpus[0]->shadow()->tlb().Lookup(
      PageNumber(ToGfn(used.nested).value()));
  MMU_CHECK(entry != nullptr);
  FollowAccess(MmuKind::kShadow,
               GfnRange::Of(entry->gfn, PagesPer(entry->level)), used.frame);
}

// A split on stage 2 makes every new page young (ARM-25).
void AgedGuest::Split(GfnRange range) {
  const std::vector<SmallLeafs> heirs = HeirsOfYoungLeafs();
  SplitRequest request;
  request.ranges = {range};
  MMU_CHECK(vm_->MakeSplitJob(request).value()->Run().ok());
  FollowAll(vm_->config().mmu == MmuMode::kStage2
                ? AgeModel::NewLeaf::kIsYoung
                : AgeModel::NewLeaf::kInherits);
  for (const SmallLeafs& heir : heirs) {
    if (model_.LeafAt(heir.huge_array, heir.gfns[0]).empty()) {
      for (const Gfn gfn : heir.gfns) model_.SetYoung(heir.array, gfn);
    }
  }
}

// L2's small leafs are not in the same array as the huge ones, and some may be
// there before the split. Those become young only by an Accessed bit
// (ShadowSplit::KeepAssists).
std::vector<AgedGuest::SmallLeafs> AgedGuest::HeirsOfYoungLeafs() {
  std::vector<SmallLeafs> heirs;
  if (!nested()) return heirs;
  const size_t small = ArrayOf(Level::k4K);
  const size_t huge = ArrayOf(Level::k2M);
  for (const GfnRange leaf : model_.Leafs(huge)) {
    if (!model_.IsYoung(huge, leaf.start)) continue;
    SmallLeafs heir{.huge_array = huge, .array = small, .gfns = {}};
    for (Gfn gfn = leaf.start; gfn < leaf.end; gfn += 1) {
      if (HasAdBits(vm_->config()) || model_.LeafAt(small, gfn).empty()) {
        heir.gfns.push_back(gfn);
      }
    }
    if (!heir.gfns.empty()) heirs.push_back(std::move(heir));
  }
  return heirs;
}

size_t AgedGuest::ArrayOf(Level level) const {
  size_t array = 0;
  while (arrays_[array].leaf_pages != PagesPer(level)) ++array;
  return array;
}

void AgedGuest::Recover(GfnRange range) {
  MMU_CHECK(vm_->RecoverHugePages({range}, nullptr).ok());
  FollowAll(AgeModel::NewLeaf::kInherits);
}

void AgedGuest::HostUnmaps(size_t slot, GfnRange range) {
  const Gfn first = RangeOf(slots_[slot]).start;
  testing::HostUnmaps(*vm_,
                      HostPagesOf(*vm_, slots_[slot].slot, range.start - first,
                                  range.end - first));
  // Whole pages of the host go.
  const uint64_t host_page =
      std::max(PagesPer(slots_[slot].host_page_level),
               HostPageBytes(vm_->config()) >> kPageShift);
  const GfnRange gone = {
      Gfn(range.start.value() / host_page * host_page),
      Gfn((range.end.value() + host_page - 1) / host_page * host_page)};
  for (size_t array = 0; array < arrays_.size(); ++array) {
    model_.Unmap(array, gone);
  }
}

void AgedGuest::DeleteSlot(size_t slot) {
  MMU_CHECK(MayGo(slot) && there_[slot]);
  MMU_CHECK(vm_->SetMemslot(Slot(slots_[slot].slot, 0, 0)).ok());
  there_[slot] = false;
  const bool all = vm_->config().mmu != MmuMode::kStage2 &&
                   vm_->config().slot_zap == VmConfig::SlotZap::kAll;
  for (size_t array = 0; array < arrays_.size(); ++array) {
    model_.Unmap(array, all ? GfnRange{Gfn(0), end_} : RangeOf(slots_[slot]));
  }
}

void AgedGuest::CreateSlot(size_t slot) {
  MMU_CHECK(!there_[slot]);
  MMU_CHECK(vm_->SetMemslot(slots_[slot]).ok());
  there_[slot] = true;
}

std::string AgedGuest::WhyNotInStep() {
  std::ostringstream why;
  for (size_t array = 0; array < arrays_.size(); ++array) {
    const std::vector<GfnRange> real = LeafsFor(array, {Gfn(0), end_});
    const std::vector<GfnRange> expected = model_.Leafs(array);
    const auto [r, e] = std::mismatch(real.begin(), real.end(),
                                      expected.begin(), expected.end());
    if (r == real.end() && e == expected.end()) continue;
    why << ToString(arrays_[array].kind) << ": the tables have ";
    r == real.end() ? why << "no more" : why << *r;
    why << ", the model ";
    e == expected.end() ? why << "no more" : why << *e;
    why << "\n";
  }
  return why.str();
}

}  // namespace mmu::testing
