#include "mmu_core/guest/hypervisor/l2_cpu.h"

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/memory/guest_words.h"

namespace mmu {
namespace {

// The entries of L2's tables, as the processor's walk accesses them. After an
// access that was not done, no further one is made.
class Words final : public GuestWords {
 public:
  Words(L1Cpu& cpu, const L1HypervisorOptions& options, NestedExit* exit)
      : cpu_(cpu), options_(options), exit_(exit) {}

  L1Cpu::Outcome outcome() const { return outcome_; }

  GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override {
    MMU_CHECK(size == WordSize::k8);
    if (!Access(gpa, AccessKind::kRead, value)) return GuestWordResult::kNoSlot;
    // The write of the same value needs the right that the walk needs.
    uint64_t same = *value;
    if (options_.HasDirtyBits() && !Access(gpa, AccessKind::kWrite, &same)) {
      return GuestWordResult::kNoSlot;
    }
    return GuestWordResult::kDone;
  }

  // Not one step on the bus: no other processor runs this guest.
  GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                  uint64_t desired) override {
    uint64_t value = 0;
    const GuestWordResult read = Read(gpa, size, &value);
    if (read != GuestWordResult::kDone) return read;
    if (value != expected) return GuestWordResult::kChanged;
    return Access(gpa, AccessKind::kWrite, &desired) ? GuestWordResult::kDone
                                                     : GuestWordResult::kNoSlot;
  }

 private:
  bool Access(Gpa gpa, AccessKind kind, uint64_t* word) {
    if (outcome_ != L1Cpu::Outcome::kDone) return false;
    outcome_ = cpu_.L2Access(
        {.nested_gpa = gpa, .kind = kind, .target = NestedTarget::kGuestTable},
        word, exit_);
    return outcome_ == L1Cpu::Outcome::kDone;
  }

  L1Cpu& cpu_;
  const L1HypervisorOptions& options_;
  NestedExit* const exit_;
  L1Cpu::Outcome outcome_ = L1Cpu::Outcome::kDone;
};

// What a walk that found a page found. REQUIRES: walk.level != 0.
CombinedMapping MappingOf(const GuestWalker& walker,
                          const GuestWalkResult& walk) {
  const GuestWalkStep& leaf = walk.step(walk.level);
  const GuestWalker::EntryInfo info = walker.Decode(leaf.entry, walk.level);
  return {.nested = info.gfn,
          .level = walk.leaf_level(),
          .rights = leaf.access & info.rights,
          .dirty = info.dirty};
}

}  // namespace

GuestCpu::Outcome L2Cpu::Access(Gva gva, int size_bytes, AccessKind kind,
                                Privilege privilege, uint64_t* word,
                                GuestPageFault* fault) {
  MMU_CHECK(size_bytes == 8);
  const GuestPageAccess access = {.kind = kind, .privilege = privilege};
  std::optional<GuestFault> of_l2;
  status_ = l1_->Run(vcpu_, [&](L1Cpu& cpu, NestedExit* exit) {
    return TryAccess(cpu, gva, access, word, &of_l2, exit);
  });
  if (!status_.ok()) return Outcome::kError;
  if (!of_l2.has_value()) return Outcome::kDone;
  *fault = {.address = gva, .error_code = of_l2->code};
  return Outcome::kFault;
}

L1Cpu::Outcome L2Cpu::TryAccess(L1Cpu& cpu, Gva gva,
                                const GuestPageAccess& access, uint64_t* word,
                                std::optional<GuestFault>* fault,
                                NestedExit* exit) {
  CombinedMappings& cache = cpu.combined();
  const LinearAddress at = {.pcid = root_.pcid, .gva = gva};
  const Translation translation = Translate(cpu, at, access, exit);
  if (translation.outcome != L1Cpu::Outcome::kDone) return translation.outcome;
  if (translation.fault.has_value()) {
    *fault = translation.fault;
    cache.Invlpg(at);
    return L1Cpu::Outcome::kDone;
  }
  const L1Cpu::Outcome outcome = cpu.L2Access(
      {.nested_gpa = ToGpa(translation.nested) + (gva.value() & kPageMask),
       .kind = access.kind},
      word, exit);
  if (outcome == L1Cpu::Outcome::kExit) cache.Drop(at);
  return outcome;
}

L2Cpu::Translation L2Cpu::Translate(L1Cpu& cpu, LinearAddress at,
                                    const GuestPageAccess& access,
                                    NestedExit* exit) const {
  CombinedMappings& cache = cpu.combined();
  if (const auto mapping = cache.Find(at); mapping.has_value()) {
    if (walker_.permissions().Denies(access, mapping->rights)) {
      return {.fault = walker_.DeniedFault(access, mapping->rights)};
    }
    if (mapping->dirty || access.kind != AccessKind::kWrite) {
      const uint64_t page = PageNumberOf(at.gva.value()).value();
      return {.nested = mapping->nested + page % PagesPer(mapping->level)};
    }
    cache.Drop(at);  // walks again, to set Dirty
  }
  Words words(cpu, l1_->options(), exit);
  const GuestWalkResult walk =
      walker_.Walk(words, root_, at.gva.value(), access);
  if (words.outcome() != L1Cpu::Outcome::kDone) {
    return {.outcome = words.outcome()};
  }
  if (!walk.translated()) return {.fault = walk.fault};
  if (walk.level != 0) cache.Insert(at, MappingOf(walker_, walk));
  return {.nested = walk.gfn};
}

void L2Cpu::EnablePaging(const PagingGeometry& geometry, Gpa cr3) {
  MMU_CHECK(geometry.levels >= 4);
  GuestPagingState state;
  state.cr0 = kCr0Pg | kCr0Wp;
  state.cr4 = kCr4Pae | (geometry.levels == 5 ? kCr4La57 : 0);
  state.efer = kEferNx | kEferLma;
  walker_ = GuestWalker(GuestTables::kLegacy, LegacyCpuRole(state), {});
  LoadCr3(cr3, /*pcid=*/0, Cr3Load::kFlush);
}

void L2Cpu::LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) {
  root_ = {.table = ToGfn(cr3), .pdptes = {}, .pcid = pcid};
  if (how == Cr3Load::kKeep) return;
  InvalidatePcid(Invpcid::kSingleContext, pcid, Gva(0));
}

void L2Cpu::Invlpg(Gva gva) {
  InvalidatePcid(Invpcid::kAddress, root_.pcid, gva);
}

void L2Cpu::InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) {
  // The reason of an access that failed before stays.
  status_.Update(l1_->Run(vcpu_, [&](L1Cpu& cpu, NestedExit*) {
    cpu.combined().InvalidatePcid(what, {.pcid = pcid, .gva = gva});
    return L1Cpu::Outcome::kDone;
  }));
}

}  // namespace mmu
