// The loop that turns one access of a vCPU into a translation, for whichever
// tables the vCPU runs on.
//
//   1. Open an access section (tlb/vcpu_gate.h). A pending request (flush, new
//      root) is carried out first.
//   2. The TLB has a translation that allows the access: the bytes are read or
//      written, the section closes. Done.
//   3. Without a root, load one, and from 1 again.
//   4. Walk the tables. If they allow the access, the translation goes into the
//      TLB, and as 2.
//   5. Otherwise the section closes, the vCPU exits (leaves guest mode), and
//      its engine handles the fault. Then from 1 again, unless the engine has an
//      answer.
//   6. Where a fault can come to nothing yet, because the host invalidates the
//      page or its memslot is changing, the vCPU waits (held_back.h).
//   7. A write to a guest's table that stays write-protected is carried out by
//      emulation (emulate_write.h).
//
// The engine is a type known at compile time: no call here is virtual.

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
#include "mmu_core/vm/vcpu/table_walk.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// What became of a fault.
enum class FaultStep : uint8_t {
  kTryAgain,        // what was in the way is gone, or somebody was faster
  kHeldBack,        // the same, if the host or a memslot is not in the way
  kWriteProtected,  // a guest's table is there, and stays write-protected
  kEmulate,         // no memory can be mapped there
  kGuestFault,      // the guest's own tables do not allow the access
  kError,           // the host could not serve it: the engine has the status
};

// What follows from the answer of an MMU.
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

// One access on its way, on one kind of tables. Everything is called on the
// vCPU's thread.
template <typename E>
concept AccessEngine = requires(E engine, const TlbEntry& entry,
                                const WalkResult& walk) {
  // In an access section: the entry of the TLB that allows the access, or null.
  { engine.Lookup() } -> std::same_as<const TlbEntry*>;
  // In an access section: reads or writes the bytes.
  { engine.Perform(entry) };
  // In an access section: there are tables to walk.
  { engine.HasRoot() } -> std::same_as<bool>;
  // Outside: loads a root, or says why not.
  { engine.LoadRoot() } -> std::same_as<absl::Status>;
  // In an access section.
  { engine.Walk() } -> std::same_as<WalkResult>;
  { engine.Insert(entry) };
  // After an access section in which a walk gave a translation.
  { engine.AfterWalk() };
  // Outside of guest mode, with no lock held: handles what the walk met.
  { engine.Fault(walk) } -> std::same_as<FaultStep>;
  // After Fault: where it was, and the bytes to emulate.
  { engine.gpa() } -> std::same_as<Gpa>;
  { engine.memory() } -> std::same_as<GuestWords&>;
  { engine.size_bytes() } -> std::same_as<int>;
  { engine.word() } -> std::same_as<uint64_t>;
  // Why the access is AccessOutcome::kError.
  { engine.SetStatus(absl::Status()) };
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
    const WalkResult walk = engine.Walk();
    if (walk.kind == WalkResult::Kind::kTranslated) {
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
            EmulateGuestWrite(vm, engine.memory(), engine.gpa(),
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
