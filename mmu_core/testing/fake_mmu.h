// An MMU that records its calls, for tests of which MMUs an operation calls, in
// which order and under which lock.

#ifndef MMU_CORE_TESTING_FAKE_MMU_H_
#define MMU_CORE_TESTING_FAKE_MMU_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/testing/test_mmu_kind.h"

namespace mmu::testing {

// The calls of all MMUs of a VM. Externally synchronised.
struct MmuCalls {
  // "name.Function" and, in brackets, how the calling thread held mmu_lock:
  // "tdp.Reprotect[write]". A repeated call is recorded once.
  std::vector<std::string> calls;
  // How the thread holds mmu_lock now: "none", "read", "write".
  std::function<std::string()> held;

  void Add(const std::string& name, const std::string& function);
};

// Forwards all calls to `real`. Without `real` it has no mappings and does
// nothing. As thread-safe as `real` and `calls` are.
class FakeMmu final : public Mmu {
 public:
  FakeMmu(std::string name, MmuCalls& calls,
          std::unique_ptr<Mmu> real = nullptr)
      : name_(std::move(name)), calls_(calls), real_(std::move(real)) {}

  // An error that CollectDirty returns.
  void set_collect_status(absl::Status status) {
    collect_status_ = std::move(status);
  }

  // The result of MayBeInUse without a real MMU; by default true.
  void set_in_use(std::function<bool()> in_use) { in_use_ = std::move(in_use); }

  MmuKind kind() const override {
    return real_ != nullptr ? real_->kind() : kTestMmu;
  }
  bool MayMap(const Memslot& slot) const override {
    return real_ == nullptr || real_->MayMap(slot);
  }
  bool MayBeInUse() const override {
    if (real_ != nullptr) return real_->MayBeInUse();
    return in_use_ == nullptr || in_use_();
  }
  AgingLock aging_lock() const override {
    return real_ == nullptr ? AgingLock::kRmap : real_->aging_lock();
  }
  bool FlushesAged() const override {
    return real_ != nullptr && real_->FlushesAged();
  }
  bool ProtectsBeforeSplit() const override {
    return real_ != nullptr && real_->ProtectsBeforeSplit();
  }
  bool MapsPagesOnce() const override {
    return real_ == nullptr || real_->MapsPagesOnce();
  }

  SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                         MmuCost* cost) override;
  SplitOutcome Split(const Memslot& slot, GfnRange range, const SplitPlan& plan,
                     MmuCost* cost) override;
  RecoverOutcome Recover(const Memslot& slot, GfnRange range, MmuCost* cost,
                         const HoldLimit& limit) override;
  void FastZapAll(LockOp op, MmuCost* cost) override;
  uint64_t RecoverNxHugePages(uint32_t ratio,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost) override;
  void SlotsChanged(uint64_t pages, MmuCost* cost) override;
  void FreeSplitTables() override;
  uint64_t shadow_page_limit() const override {
    return real_ == nullptr ? 0 : real_->shadow_page_limit();
  }
  absl::Status SetShadowPageLimit(uint64_t pages, MmuCost* cost) override;
  void GuestWrote(int as_id, Gpa gpa, int bytes, GuestWords& memory,
                  MmuCost* cost) override;
  bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                FlushReason reason, MayYield may_yield, MmuCost* cost) override;
  void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                  MmuCost* cost) override;
  SplitOutcome SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, Level target,
                             MmuCost* cost) override;
  void Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                 absl::Span<const PageMask> pages, NoticeBy notice_by,
                 AlsoProtected& also, MmuCost* cost) override;
  bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                       Level min_level) override;
  absl::Status CollectDirty(MmuCost* cost) override;
  void Age(const MemslotTable& slots, int as_id, GfnRange range, AgeMode mode,
           AgeScan scan, AgeResult& result, MmuCost* cost) const override;
  bool List(ShadowPageLister& listing) const override;
  void Audit(const MmuWriteLocked& lock, AuditSink& sink) const override;

 private:
  void Note(const std::string& function) const { calls_.Add(name_, function); }

  const std::string name_;
  MmuCalls& calls_;
  const std::unique_ptr<Mmu> real_;
  absl::Status collect_status_;
  std::function<bool()> in_use_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FAKE_MMU_H_
