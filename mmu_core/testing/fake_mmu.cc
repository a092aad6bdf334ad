#include "mmu_core/testing/fake_mmu.h"

#include <string>

#include "mmu_core/base/format.h"

namespace mmu::testing {

void MmuCalls::Add(const std::string& name, const std::string& function) {
  std::string call =
      Format("%s.%s[%s]", name, function, held ? held() : "none");
  if (calls.empty() || calls.back() != call) calls.push_back(std::move(call));
}

SplitOutcome FakeMmu::EnableLog(const Memslot& slot, const LogPlan& plan,
                                MmuCost* cost) {
  Note("EnableLog");
  return real_ == nullptr ? SplitOutcome() : real_->EnableLog(slot, plan, cost);
}

SplitOutcome FakeMmu::Split(const Memslot& slot, GfnRange range,
                            const SplitPlan& plan, MmuCost* cost) {
  Note("Split");
  if (real_ != nullptr) return real_->Split(slot, range, plan, cost);
  SplitOutcome nothing;
  nothing.next_gfn = range.end;
  return nothing;
}

RecoverOutcome FakeMmu::Recover(const Memslot& slot, GfnRange range,
                                MmuCost* cost, const HoldLimit& limit) {
  Note("Recover");
  return real_ == nullptr ? RecoverOutcome()
                          : real_->Recover(slot, range, cost, limit);
}

void FakeMmu::FastZapAll(LockOp op, MmuCost* cost) {
  Note("FastZapAll");
  if (real_ != nullptr) real_->FastZapAll(op, cost);
}

uint64_t FakeMmu::RecoverNxHugePages(
    uint32_t ratio, absl::FunctionRef<bool(const ShadowPage&)> keep,
    MmuCost* cost) {
  Note("RecoverNxHugePages");
  return real_ == nullptr ? 0 : real_->RecoverNxHugePages(ratio, keep, cost);
}

void FakeMmu::SlotsChanged(uint64_t pages, MmuCost* cost) {
  Note("SlotsChanged");
  if (real_ != nullptr) real_->SlotsChanged(pages, cost);
}

void FakeMmu::FreeSplitTables() {
  Note("FreeSplitTables");
  if (real_ != nullptr) real_->FreeSplitTables();
}

absl::Status FakeMmu::SetShadowPageLimit(uint64_t pages, MmuCost* cost) {
  Note("SetShadowPageLimit");
  return real_ == nullptr ? absl::OkStatus()
                          : real_->SetShadowPageLimit(pages, cost);
}

void FakeMmu::GuestWrote(int as_id, Gpa gpa, int bytes, GuestWords& memory,
                         MmuCost* cost) {
  Note("GuestWrote");
  if (real_ != nullptr) real_->GuestWrote(as_id, gpa, bytes, memory, cost);
}

bool FakeMmu::ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                       GfnRange range, FlushReason reason, MayYield may_yield,
                       MmuCost* cost) {
  Note("ZapLeafs");
  return real_ != nullptr &&
         real_->ZapLeafs(lock, slot, range, reason, may_yield, cost);
}

void FakeMmu::ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                         MmuCost* cost) {
  Note("ForgetSlot");
  if (real_ != nullptr) real_->ForgetSlot(lock, slot, cost);
}

SplitOutcome FakeMmu::SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                                    GfnRange range, Level target,
                                    MmuCost* cost) {
  Note("SplitForClear");
  return real_ == nullptr
             ? SplitOutcome()
             : real_->SplitForClear(lock, slot, range, target, cost);
}

void FakeMmu::Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                        absl::Span<const PageMask> pages, NoticeBy notice_by,
                        AlsoProtected& also, MmuCost* cost) {
  Note("Reprotect");
  if (real_ != nullptr) {
    real_->Reprotect(lock, slot, pages, notice_by, also, cost);
  }
}

bool FakeMmu::WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                              Gfn gfn, Level min_level) {
  Note("WriteProtectGfn");
  return real_ != nullptr && real_->WriteProtectGfn(lock, slot, gfn, min_level);
}

absl::Status FakeMmu::CollectDirty(MmuCost* cost) {
  Note("CollectDirty");
  if (real_ == nullptr || !collect_status_.ok()) return collect_status_;
  return real_->CollectDirty(cost);
}

void FakeMmu::Age(const MemslotTable& slots, int as_id, GfnRange range,
                  AgeMode mode, AgeScan scan, AgeResult& result,
                  MmuCost* cost) const {
  Note("Age");
  if (real_ == nullptr) return;
  real_->Age(slots, as_id, range, mode, scan, result, cost);
}

bool FakeMmu::List(ShadowPageLister& listing) const {
  Note("List");
  return real_ == nullptr || real_->List(listing);
}

void FakeMmu::Audit(const MmuWriteLocked& lock, AuditSink& sink) const {
  Note("Audit");
  if (real_ != nullptr) real_->Audit(lock, sink);
}

}  // namespace mmu::testing
