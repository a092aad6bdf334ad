#include "mmu_core/vm/run/l1_processor.h"

#include <optional>
#include <thread>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/pae_roots.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {
L1Processor::L1Processor(Vcpu& vcpu, Level tdp_level,
                         std::function<bool()> await_ring_room,
                         MissingMemory missing, std::function<void()> pause,
                         const TlbOptions& combined)
    : vcpu_(vcpu),
      tdp_level_(tdp_level),
      await_ring_room_(std::move(await_ring_room)),
      missing_(missing),
      pause_(std::move(pause)),
      combined_(combined) {
  MMU_CHECK(vcpu.shadow() != nullptr);
}

bool L1Processor::AwaitRingRoom() {
  if (await_ring_room_ != nullptr && await_ring_room_()) return true;
  status_ =
      absl::CancelledError("the dirty ring is full, and the guest is to stop");
  return false;
}

bool L1Processor::Access(Gpa gpa, int size_bytes, AccessKind kind,
                         uint64_t* word) {
  MMU_DCHECK(!in_l2_);
  // A 4-byte write rewrites the 8 bytes around it. This is safe: a hypervisor
  // with 4-byte tables runs on one vCPU, so no other vCPU writes the other half
  // meanwhile.
  const int shift = size_bytes == 4 ? static_cast<int>(gpa.value() & 4) * 8 : 0;
  const uint64_t mask = size_bytes == 4 ? 0xffff'ffff : ~uint64_t{0};
  uint64_t whole = *word;
  if (size_bytes == 4 && kind == AccessKind::kWrite) {
    if (!Access(Gpa(gpa.value() & ~uint64_t{7}), 8, AccessKind::kRead,
                &whole)) {
      return false;
    }
    whole = (whole & ~(mask << shift)) | (*word & mask) << shift;
  }
  AccessOutcome outcome = vcpu_.Access(gpa, kind, &whole);
  while (outcome == AccessOutcome::kDirtyRingFull) {
    if (!AwaitRingRoom()) return false;
    outcome = vcpu_.ContinueAccess(gpa, kind, &whole);
  }
  if (outcome == AccessOutcome::kError) {
    status_ = vcpu_.status();
    return false;
  }
  if (outcome == AccessOutcome::kEmulated) {
    if (missing_ == MissingMemory::kLost) {
      status_ = GuestMemoryIsGone(gpa.value());
      return false;
    }
    whole = ~uint64_t{0};
  }
  if (kind != AccessKind::kWrite) *word = whole >> shift & mask;
  return true;
}

void L1Processor::Pause() {
  MMU_DCHECK(!in_l2_);
  if (pause_ != nullptr) return pause_();
  std::this_thread::yield();
}

void L1Processor::InveptSingleContext(Gpa root) {
  // The instruction exits, and the host takes mmu_lock.
  const Vcpu::Exit exit(vcpu_);
  vcpu_.shadow()->InvalidateRoot(ToGfn(root));
  combined_.Invept(root);
}

void L1Processor::InveptGlobal() {
  const Vcpu::Exit exit(vcpu_);
  vcpu_.shadow()->InvalidateAll();
  combined_.InveptGlobal();
}

// The host's tables translate nested gpas only, so they are not concerned.
void L1Processor::InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) {
  MMU_DCHECK(!in_l2_);
  combined_.InvalidateVpid(what, vpid, gva);
}

void L1Processor::FlushAsid() { flush_asid_ = true; }

GuestRoot L1Processor::RootOf(const NestedPaging& paging) {
  GuestRoot root = {.table = ToGfn(paging.root)};
  ShadowVcpu& shadow = *vcpu_.shadow();
  if (paging.tables == GuestTables::kNpt &&
      shadow.paging().role.guest_level() == 3) {
    // NPT in PAE format: the processor loads the four top entries now.
    const std::optional<Pdptes> pdptes = LoadPdptes(
        shadow.memory(), paging.root.value(), shadow.max_phys_bits());
    if (pdptes.has_value()) root.pdptes = *pdptes;
  }
  return root;
}

void L1Processor::EnterL2(const NestedPaging& paging) {
  const Vcpu::Exit exit(vcpu_);
  paging_ = paging;
  in_l2_ = true;
  ShadowVcpu& shadow = *vcpu_.shadow();
  shadow.SetPaging(paging.tables == GuestTables::kEpt
                       ? ShadowPaging::OfEpt(paging.ept)
                       : ShadowPaging::OfNpt(paging.l1, tdp_level_));
  // The guest with this ASID always has this nCR3.
  if (std::exchange(flush_asid_, false)) {
    shadow.InvalidateRoot(ToGfn(paging.root));
    combined_.InvalidateVpid(Invvpid::kSingleContext, paging.asid, Gva(0));
  }
  combined_.Enter(paging.asid, paging.ep4ta());
  shadow.SetRoot(RootOf(paging), ShadowVcpu::Flush::kNo);
  if (std::exchange(entered_, paging.root) == paging.root) return;
  ++(shadow.roots().table() != nullptr ? stats_.kept_roots
                                       : stats_.missed_roots);
}

L1Cpu::Outcome L1Processor::L2Access(const NestedAccess& access, uint64_t* word,
                                     NestedExit* exit) {
  MMU_DCHECK(in_l2_);
  const GuestPageAccess by_l2 = {
      .kind = access.kind,
      .privilege = paging_.tables == GuestTables::kNpt ? Privilege::kUser
                                                       : Privilege::kSupervisor,
      .target = access.target};
  GuestFault fault;
  for (;;) {
    switch (vcpu_.shadow()->Access(access.nested_gpa.value(), access.size_bytes,
                                   by_l2, word, &fault)) {
      case AccessOutcome::kDone:
        return Outcome::kDone;
      case AccessOutcome::kEmulated:
        if (missing_ == MissingMemory::kLost) {
          status_ = GuestMemoryIsGone(access.nested_gpa.value());
          return Outcome::kError;
        }
        if (access.kind != AccessKind::kWrite) *word = ~uint64_t{0};
        return Outcome::kDone;
      case AccessOutcome::kGuestFault:
        in_l2_ = false;
        *exit = {.nested_gpa = access.nested_gpa,
                 .kind = access.kind,
                 .fault = fault};
        return Outcome::kExit;
      case AccessOutcome::kError:
        status_ = vcpu_.shadow()->status();
        return Outcome::kError;
      case AccessOutcome::kDirtyRingFull:
        if (!AwaitRingRoom()) return Outcome::kError;
        break;
    }
  }
}

}  // namespace mmu
