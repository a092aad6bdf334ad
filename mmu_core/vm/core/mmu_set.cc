#include "mmu_core/vm/core/mmu_set.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// Calls `fn` for each MMU that may map the slot, the last added first.
template <typename Mmus, typename Fn>
void ForEachLastFirst(const Mmus& mmus, const Memslot& slot, Fn fn) {
  for (auto mmu = mmus.rbegin(); mmu != mmus.rend(); ++mmu) {
    if ((*mmu)->MayMap(slot)) fn(**mmu);
  }
}

// The same, the first added first.
template <typename Mmus, typename Fn>
void ForEachFirstFirst(const Mmus& mmus, const Memslot& slot, Fn fn) {
  for (const auto& mmu : mmus) {
    if (mmu->MayMap(slot)) fn(*mmu);
  }
}

}  // namespace

void MmuSet::Add(std::unique_ptr<Mmu> mmu) {
  MMU_CHECK(mmus_.size() < kMaxMmus);
  MMU_CHECK(mmus_.empty() || mmus_.back()->kind() < mmu->kind());
  mmus_.push_back(std::move(mmu));
}

void MmuSet::WrapForTest(
    const std::function<std::unique_ptr<Mmu>(std::unique_ptr<Mmu>)>& wrap) {
  for (std::unique_ptr<Mmu>& mmu : mmus_) mmu = wrap(std::move(mmu));
}

std::vector<MmuKind> MmuSet::Kinds() const {
  std::vector<MmuKind> kinds;
  for (const auto& mmu : mmus_) kinds.push_back(mmu->kind());
  return kinds;
}

SplitOutcome MmuSet::EnableLog(const Memslot& slot, const LogPlan& plan,
                               MmuCost* cost) {
  SplitOutcome all;
  bool asked = false;
  bool flushed = true;
  ForEachLastFirst(mmus_, slot, [&](Mmu& mmu) {
    const SplitOutcome one = mmu.EnableLog(slot, plan, cost);
    all.AddCounts(one);
    asked = true;
    flushed = flushed && one.flushed;
  });
  // Where no MMU maps anything, KVM flushes nevertheless (DL-02).
  all.flushed = asked && flushed;
  all.next_gfn = slot.range().end;
  return all;
}

SplitOutcome MmuSet::Split(const Memslot& slot, GfnRange range,
                           const SplitPlan& plan, MmuCost* cost) {
  SplitOutcome all;
  ForEachFirstFirst(mmus_, slot, [&](Mmu& mmu) {
    const SplitOutcome one = mmu.Split(slot, range, plan, cost);
    all.AddCounts(one);
    if (all.locked_at_nanos == 0) all.locked_at_nanos = one.locked_at_nanos;
    if (one.StoppedBefore(range.end)) {
      // At least one page, so that the next step makes progress.
      range.end = std::max(one.next_gfn, range.start + 1);
    }
  });
  all.next_gfn = range.end;
  return all;
}

RecoverOutcome MmuSet::Recover(const Memslot& slot, GfnRange range,
                               MmuCost* cost, const HoldLimit& limit) {
  RecoverOutcome all;
  ForEachLastFirst(mmus_, slot, [&](Mmu& mmu) {
    all += mmu.Recover(slot, range, cost, limit);
  });
  return all;
}

void MmuSet::FastZapAll(LockOp op, MmuCost* cost) {
  for (auto mmu = mmus_.rbegin(); mmu != mmus_.rend(); ++mmu) {
    (*mmu)->FastZapAll(op, cost);
  }
}

uint64_t MmuSet::RecoverNxHugePages(
    uint32_t ratio, absl::FunctionRef<bool(const ShadowPage&)> keep,
    MmuCost* cost) {
  uint64_t zapped = 0;
  for (const auto& mmu : mmus_) {
    zapped += mmu->RecoverNxHugePages(ratio, keep, cost);
  }
  return zapped;
}

void MmuSet::SlotsChanged(uint64_t pages, MmuCost* cost) {
  for (const auto& mmu : mmus_) mmu->SlotsChanged(pages, cost);
}

void MmuSet::FreeSplitTables() {
  for (const auto& mmu : mmus_) mmu->FreeSplitTables();
}

uint64_t MmuSet::shadow_page_limit() const {
  uint64_t limit = 0;
  for (const auto& mmu : mmus_) {
    limit = std::max(limit, mmu->shadow_page_limit());
  }
  return limit;
}

absl::Status MmuSet::SetShadowPageLimit(uint64_t pages, MmuCost* cost) {
  absl::Status first;
  for (const auto& mmu : mmus_) {
    if (mmu->shadow_page_limit() == 0) continue;
    first.Update(mmu->SetShadowPageLimit(pages, cost));
  }
  return first;
}

void MmuSet::GuestWrote(int as_id, Gpa gpa, int bytes, GuestWords& memory,
                        MmuCost* cost) {
  for (const auto& mmu : mmus_)
    mmu->GuestWrote(as_id, gpa, bytes, memory, cost);
}

bool MmuSet::ZapLeafs(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                      FlushReason reason, MayYield may_yield, MmuCost* cost) {
  bool zapped = false;
  ForEachLastFirst(mmus_, slot, [&](Mmu& mmu) {
    zapped |= mmu.ZapLeafs(lock, slot, range, reason, may_yield, cost);
  });
  return zapped;
}

void MmuSet::ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                        MmuCost* cost) {
  ForEachLastFirst(mmus_, slot,
                   [&](Mmu& mmu) { mmu.ForgetSlot(lock, slot, cost); });
}

SplitOutcome MmuSet::SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                                   GfnRange range, Level target,
                                   MmuCost* cost) {
  SplitOutcome all;
  ForEachLastFirst(mmus_, slot, [&](Mmu& mmu) {
    all.AddCounts(mmu.SplitForClear(lock, slot, range, target, cost));
  });
  all.next_gfn = range.end;
  return all;
}

void MmuSet::Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                       absl::Span<const PageMask> pages, NoticeBy notice_by,
                       AlsoProtected& also, MmuCost* cost) {
  ForEachFirstFirst(mmus_, slot, [&](Mmu& mmu) {
    mmu.Reprotect(lock, slot, pages, notice_by, also, cost);
  });
}

bool MmuSet::ProtectsBeforeSplit() const {
  return std::any_of(mmus_.begin(), mmus_.end(), [](const auto& mmu) {
    return mmu->ProtectsBeforeSplit();
  });
}

bool MmuSet::FlushesAged() const {
  return std::any_of(mmus_.begin(), mmus_.end(),
                     [](const auto& mmu) { return mmu->FlushesAged(); });
}

bool MmuSet::WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                             Gfn gfn, Level min_level) {
  bool changed = false;
  ForEachFirstFirst(mmus_, slot, [&](Mmu& mmu) {
    changed |= mmu.WriteProtectGfn(lock, slot, gfn, min_level);
  });
  return changed;
}

bool MmuSet::WriteProtectGfnInOthers(MmuKind kind, const MmuWriteLocked& lock,
                                     const Memslot& slot, Gfn gfn,
                                     Level min_level) {
  bool changed = false;
  ForEachFirstFirst(mmus_, slot, [&](Mmu& mmu) {
    if (mmu.kind() == kind) return;
    changed |= mmu.WriteProtectGfn(lock, slot, gfn, min_level);
  });
  return changed;
}

absl::Status MmuSet::CollectDirty(MmuCost* cost) {
  absl::Status first;
  for (const auto& mmu : mmus_) first.Update(mmu->CollectDirty(cost));
  return first;
}

namespace {

// The size of the ranges that are aged in one RCU read section. A section keeps
// the freed memory of all VMs.
constexpr Level kAgedInOneSection = Level::k1G;

// Whether a test has found what it was asked for.
bool Suffices(const AgeResult& result, AgeMode mode, AgeUntil until) {
  return mode == AgeMode::kTest && until == AgeUntil::kFirstYoung &&
         result.young_page_count != 0;
}

void AgeLockless(const Mmu& mmu, const MemslotTable& slots, int as_id,
                 GfnRange range, AgeMode mode, const AgeOptions& options,
                 AgeResult& result, MmuCost* cost) {
  while (!range.empty() && !Suffices(result, mode, options.until)) {
    const Gfn next =
        RoundDown(range.start, kAgedInOneSection) + PagesPer(kAgedInOneSection);
    const GfnRange part = {range.start, std::min(next, range.end)};
    RcuReadGuard rcu;
    mmu.Age(slots, as_id, part, mode, options.scan, result, cost);
    range.start = part.end;
  }
}

}  // namespace

bool MmuSet::AgesFast() const {
  return std::any_of(mmus_.begin(), mmus_.end(),
                     [](const auto& mmu) { return mmu->AgesFast(); });
}

AgingLock MmuSet::aging_lock(MmuKind kind) const {
  const auto mmu =
      std::find_if(mmus_.begin(), mmus_.end(),
                   [kind](const auto& one) { return one->kind() == kind; });
  MMU_CHECK(mmu != mmus_.end());
  return (*mmu)->aging_lock();
}

AgeResult MmuSet::Age(const MemslotTable& slots, int as_id, GfnRange range,
                      AgeMode mode, const AgeOptions& options, MmuCost* cost,
                      KeepMapped keep_mapped) const {
  AgeResult result = AgeResult::For(range);
  // Decided once: an MMU that comes into use while another one is aged has
  // nothing that was young before.
  std::array<const Mmu*, kMaxMmus> asked{};
  size_t count = 0;
  bool mapped_once = true;
  for (const auto& mmu : mmus_) {
    if (!mmu->MayBeInUse()) continue;
    if (options.fast_only == FastOnly::kYes && !mmu->AgesFast()) {
      result.reach.Of(mmu->kind()).skipped = true;
      continue;
    }
    asked[count++] = mmu.get();
    mapped_once = mapped_once && mmu->MapsPagesOnce();
  }
  if (options.slow == SlowMmus::kRefuse && result.reach.skipped_any()) {
    return result;
  }
  // Where several leafs may map one page, bitmaps tell whether one of them did.
  const bool by_bitmap =
      count > 1 || !mapped_once || keep_mapped == KeepMapped::kYes;
  if (by_bitmap) result.mapped.resize(result.young.size());
  for (size_t i = 0; i < count && !Suffices(result, mode, options.until); ++i) {
    const Mmu& mmu = *asked[i];
    AgeReach::Mmu& reach = result.reach.Of(mmu.kind());
    reach.asked = true;
    reach.lock = mmu.aging_lock();
    const uint64_t young_before = result.young_page_count;
    if (reach.lock == AgingLock::kWrite) {
      mmu.Age(slots, as_id, range, mode, options.scan, result, cost);
    } else {
      AgeLockless(mmu, slots, as_id, range, mode, options, result, cost);
    }
    result.reach.was_fast |=
        mmu.AgesFast() && result.young_page_count != young_before;
  }
  if (by_bitmap) CountPages(result);
  return result;
}

bool MmuSet::List(ShadowPageLister& listing) const {
  for (const auto& mmu : mmus_) {
    if (mmu->kind() < listing.position.owner) continue;
    if (mmu->kind() != listing.position.owner) {
      listing.position = {.owner = mmu->kind()};
    }
    if (listing.filter.owner.value_or(mmu->kind()) != mmu->kind()) continue;
    if (!mmu->List(listing)) return false;
  }
  return true;
}

void MmuSet::Audit(const MmuWriteLocked& lock, AuditSink& sink) const {
  for (const auto& mmu : mmus_) mmu->Audit(lock, sink);
}

}  // namespace mmu
