// The loop that turns one access of a vCPU into a translation. It is the same
// for the TDP MMU's tables and for shadow tables.
//
//   1. Open an access section (tlb/vcpu_gate.h). A pending request (flush, new
//      root) is carried out first.
//   2. If the TLB has a translation that allows the access, the bytes are read
//      or written and the section closes. The access is done.
//   3. If the vCPU has no root, it loads one and starts again at 1.
//   4. Walk the tables. If they allow the access, the translation goes into the
//      TLB, the bytes are read or written, and the section closes, as in 2.
//   5. Otherwise the section closes, the vCPU exits (leaves guest mode), and
//      its engine handles the fault. The loop starts again at 1, unless the
//      fault has already decided the outcome.
//   6. A fault cannot be resolved while the host invalidates the page or while
//      its memslot is changing. The vCPU waits meanwhile (held_back.h).
//   7. A write to a guest's page table that stays write-protected is emulated
//      (emulate_write.h).
//
// The engine is a template parameter: no call here is virtual.

#ifndef MMU_CORE_VM_VCPU_ACCESS_LOOP_H_
#define MMU_CORE_VM_VCPU_ACCESS_LOOP_H_

#include <concepts>
#include <cstdint>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/emulate_write.h"
#include "mmu_core/vm/vcpu/held_back.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Result of handling a fault.
enum class FaultStep : uint8_t {
  kTryAgain,        // the cause is gone, or another thread resolved it
  kHeldBack,        // as kTryAgain, after the host's or memslot's change
  kWriteProtected,  // write to a guest's page table that stays protected
  kEmulate,         // no memory can be mapped there
  kGuestFault,      // the guest's own tables do not allow the access
  kError,           // the fault failed: the engine has the status
};

// Translates an MMU's fault result into the loop's next step.
inline FaultStep StepAfter(FaultResult result) {
  switch (result) {
    case FaultResult::kEmulate:
      return FaultStep::kEmulate;
    case FaultResult::kRetry:
      return FaultStep::kHeldBack;
    case FaultResult::kWriteProtected:
      return FaultStep::kWriteProtected;
    default:
      return FaultStep::kTryAgain;
  }
}

// The state of one access on one kind of tables. All functions are called on
// the vCPU's thread.
template <typename E>
concept AccessEngine = requires(E engine, const TlbEntry& entry) {
  // In an access section: returns the TLB entry that allows the access, or
  // null.
  { engine.Lookup() } -> std::same_as<const TlbEntry*>;
  // In an access section: reads or writes the bytes.
  {engine.Perform(entry)};
  // In an access section: returns whether there are tables to walk.
  { engine.HasRoot() } -> std::same_as<bool>;
  // Outside an access section: loads a root, or returns why it cannot.
  { engine.LoadRoot() } -> std::same_as<absl::Status>;
  // In an access section: the result of a walk, a value with `entry`, which is
  // set if translated() is true.
  { engine.Walk().translated() } -> std::same_as<bool>;
  { engine.Walk().entry } -> std::convertible_to<TlbEntry>;
  {engine.Insert(entry)};
  // Called after an access section in which a walk gave a translation.
  {engine.AfterWalk()};
  // Outside guest mode, with no lock held: handles the fault that the walk
  // found.
  { engine.Fault(engine.Walk()) } -> std::same_as<FaultStep>;
  // Valid after Fault: the guest-physical address, and the bytes of a write to
  // emulate.
  { engine.gpa() } -> std::same_as<Gpa>;
  { engine.memory() } -> std::same_as<GuestWords&>;
  { engine.size_bytes() } -> std::same_as<int>;
  { engine.word() } -> std::same_as<uint64_t>;
  // Stores why the access ends with AccessOutcome::kError.
  {engine.SetStatus(absl::Status())};
};

template <AccessEngine Engine>
AccessOutcome RunAccess(VmCore& vm, Vcpu& vcpu, Engine engine) {
  VcpuGate& gate = vcpu.gate();
  for (;;) {
    if (gate.BeginAccess() != 0) {
      const Vcpu::Exit exit(vcpu);
      if (!vcpu.HandleRequests()) return AccessOutcome::kDirtyRingFull;
      continue;
    }
    if (const TlbEntry* entry = engine.Lookup(); entry != nullptr) {
      engine.Perform(*entry);
      gate.EndAccess();
      return AccessOutcome::kDone;
    }
    if (ABSL_PREDICT_FALSE(!engine.HasRoot())) {
      gate.EndAccess();
      const Vcpu::Exit exit(vcpu);
      if (absl::Status status = engine.LoadRoot(); !status.ok()) {
        engine.SetStatus(std::move(status));
        return AccessOutcome::kError;
      }
      continue;
    }
    const auto walk = engine.Walk();
    if (walk.translated()) {
      engine.Insert(walk.entry);
      engine.Perform(walk.entry);
      gate.EndAccess();
      engine.AfterWalk();
      return AccessOutcome::kDone;
    }
    gate.EndAccess();

    const Vcpu::Exit exit(vcpu);
    const FaultStep step = engine.Fault(walk);
    vcpu.NoteRingFill();
    if (ABSL_PREDICT_TRUE(step == FaultStep::kTryAgain)) continue;
    switch (step) {
      case FaultStep::kTryAgain:
        break;
      case FaultStep::kHeldBack: {
        absl::Status status =
            AwaitRelease(vm, vcpu, ToGfn(engine.gpa()),
                         [&gate] { return gate.pending_requests() != 0; });
        if (status.ok()) break;
        engine.SetStatus(std::move(status));
        return AccessOutcome::kError;
      }
      case FaultStep::kWriteProtected: {
        const EmulatedWrite write =
            EmulateGuestWrite(vm.mmus, engine.memory(), engine.gpa(),
                              engine.size_bytes(), engine.word());
        vcpu.NoteRingFill();
        if (write == EmulatedWrite::kDone) return AccessOutcome::kDone;
        if (write == EmulatedWrite::kCannot) return AccessOutcome::kEmulated;
        break;
      }
      case FaultStep::kEmulate:
        return AccessOutcome::kEmulated;
      case FaultStep::kGuestFault:
        return AccessOutcome::kGuestFault;
      case FaultStep::kError:
        return AccessOutcome::kError;
    }
  }
}

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_ACCESS_LOOP_H_
