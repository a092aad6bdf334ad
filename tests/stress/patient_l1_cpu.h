// The processor of an L1 hypervisor under stress: it stands still on request,
// and tries an access again that the host forbids for a while. It may leave out
// an instruction, to see that this is noticed.

#ifndef TESTS_STRESS_PATIENT_L1_CPU_H_
#define TESTS_STRESS_PATIENT_L1_CPU_H_

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"

namespace mmu::stress {

// Thread-compatible.
class PatientL1Cpu final : public L1Cpu {
 public:
  using Wait = std::function<void()>;
  enum class Invvpids : uint8_t { kPerform, kSkip };

  // `before_access` waits while the vCPU must stand still; `on_refusal` waits a
  // moment.
  PatientL1Cpu(std::unique_ptr<L1Cpu> cpu, Wait before_access, Wait on_refusal,
               Invvpids invvpids = Invvpids::kPerform)
      : cpu_(std::move(cpu)),
        before_access_(std::move(before_access)),
        on_refusal_(std::move(on_refusal)),
        invvpids_(invvpids) {}

  bool Access(Gpa gpa, int size_bytes, AccessKind kind,
              uint64_t* word) override {
    for (;;) {
      before_access_();
      if (cpu_->Access(gpa, size_bytes, kind, word)) return true;
      if (!IsForbidden()) return false;
      on_refusal_();
    }
  }
  void Pause() override { cpu_->Pause(); }
  void InveptSingleContext(Gpa root) override {
    cpu_->InveptSingleContext(root);
  }
  void InveptGlobal() override { cpu_->InveptGlobal(); }
  void InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) override {
    if (invvpids_ == Invvpids::kSkip) return;
    cpu_->InvalidateVpid(what, vpid, gva);
  }
  void FlushAsid() override { cpu_->FlushAsid(); }
  void EnterL2(const NestedPaging& paging) override { cpu_->EnterL2(paging); }
  Outcome L2Access(const NestedAccess& access, uint64_t* word,
                   NestedExit* exit) override {
    for (;;) {
      before_access_();
      const Outcome outcome = cpu_->L2Access(access, word, exit);
      if (outcome != Outcome::kError || !IsForbidden()) return outcome;
      on_refusal_();
    }
  }
  CombinedMappings& combined() override { return cpu_->combined(); }
  void LeaveL2() override { cpu_->LeaveL2(); }
  absl::Status status() const override { return cpu_->status(); }

 private:
  // Whether the host forbids the access for a while.
  bool IsForbidden() const {
    return DetailOf(cpu_->status()).kvm_errno == EFAULT;
  }

  const std::unique_ptr<L1Cpu> cpu_;
  const Wait before_access_;
  const Wait on_refusal_;
  const Invvpids invvpids_;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_PATIENT_L1_CPU_H_
