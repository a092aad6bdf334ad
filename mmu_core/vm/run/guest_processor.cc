#include "mmu_core/vm/run/guest_processor.h"

#include <optional>
#include <thread>

#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/pae_roots.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/vm/vcpu/parking_place.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {
namespace {

// The end of the addresses that 32 bits can reach.
constexpr uint64_t kEndWithoutPaging = uint64_t{1} << 32;

}  // namespace

GuestProcessor::GuestProcessor(Vcpu& vcpu,
                               std::function<bool()> await_ring_room,
                               MissingMemory missing)
    : vcpu_(vcpu),
      await_ring_room_(std::move(await_ring_room)),
      missing_(missing) {
  MMU_CHECK(vcpu.shadow() != nullptr);
  SetControlRegisters({});
}

GuestCpu::Outcome GuestProcessor::Access(Gva gva, int size_bytes,
                                         AccessKind kind, Privilege privilege,
                                         uint64_t* word,
                                         GuestPageFault* fault) {
  if ((state_.cr0 & kCr0Pg) == 0 && gva.value() >= kEndWithoutPaging) {
    return AccessForLoader(Gpa(gva.value()), size_bytes, kind, word);
  }
  const GuestPageAccess access = {.kind = kind, .privilege = privilege};
  GuestFault guest_fault;
  for (;;) {
    switch (vcpu_.shadow()->Access(gva.value(), size_bytes, access, word,
                                   &guest_fault)) {
      case AccessOutcome::kDone:
        return Outcome::kDone;
      case AccessOutcome::kEmulated:
        if (missing_ == MissingMemory::kLost) {
          status_ = GuestMemoryIsGone(gva.value());
          return Outcome::kError;
        }
        if (kind != AccessKind::kWrite) *word = ~uint64_t{0};
        return Outcome::kDone;
      case AccessOutcome::kGuestFault:
        MMU_CHECK(guest_fault.kind == GuestFault::Kind::kPageFault);
        *fault = {.address = gva, .error_code = guest_fault.code};
        return Outcome::kFault;
      case AccessOutcome::kError:
        status_ = vcpu_.shadow()->status();
        return Outcome::kError;
      case AccessOutcome::kDirtyRingFull:
        if (!AwaitRingRoom()) return Outcome::kError;
    }
  }
}

GuestCpu::Outcome GuestProcessor::AccessForLoader(Gpa gpa, int size_bytes,
                                                  AccessKind kind,
                                                  uint64_t* word) {
  const WordSize size = size_bytes == 4 ? WordSize::k4 : WordSize::k8;
  GuestMemoryAccess& memory = vcpu_.shadow()->memory();
  uint64_t value = 0;
  for (;;) {
    GuestWordResult result = memory.Read(gpa, size, &value);
    if (result == GuestWordResult::kDone && kind == AccessKind::kWrite) {
      result = memory.CompareExchange(gpa, size, value, *word);
      if (result == GuestWordResult::kChanged) continue;
      if (result == GuestWordResult::kRingFull) {
        if (!AwaitRingRoom()) return Outcome::kError;
        continue;
      }
    }
    if (result != GuestWordResult::kDone) {
      status_ = absl::FailedPreconditionError(
          Format("gpa 0x%x has no memory that a guest kernel can be loaded to",
                 gpa.value()));
      return Outcome::kError;
    }
    if (kind != AccessKind::kWrite) *word = value;
    return Outcome::kDone;
  }
}

bool GuestProcessor::AwaitRingRoom() {
  if (await_ring_room_ != nullptr && await_ring_room_()) return true;
  status_ =
      absl::CancelledError("the dirty ring is full, and the guest is to stop");
  return false;
}

void GuestProcessor::SetControlRegisters(const GuestPagingState& state) {
  const Vcpu::Exit exit(vcpu_);
  state_ = state;
  vcpu_.shadow()->SetPaging(ShadowPaging::OfGuest(state));
  vcpu_.shadow()->SetRoot(RootAt(cr3_), ShadowVcpu::Flush::kYes);
}

void GuestProcessor::EnablePaging(const PagingGeometry& geometry, Gpa cr3) {
  GuestPagingState state;
  state.cr0 = kCr0Pg | kCr0Wp;
  if (geometry.levels == 2) {
    state.cr4 = kCr4Pse;
  } else {
    state.cr4 = kCr4Pae | (geometry.levels == 5 ? kCr4La57 : 0);
    state.efer = kEferNx | (geometry.levels >= 4 ? kEferLma : 0);
  }
  cr3_ = cr3;
  SetControlRegisters(state);
}

GuestRoot GuestProcessor::RootAt(Gpa cr3) {
  GuestRoot root = {.table = ToGfn(cr3), .pdptes = {}, .pcid = pcid_};
  const bool pae = (state_.cr0 & kCr0Pg) != 0 && (state_.cr4 & kCr4Pae) != 0 &&
                   (state_.efer & kEferLma) == 0;
  if (!pae) return root;
  const std::optional<Pdptes> pdptes = LoadPdptes(
      vcpu_.shadow()->memory(), cr3.value(), vcpu_.shadow()->max_phys_bits());
  // Without valid PDPTEs the instruction would fault on hardware. Here the
  // guest's next access finds no memory, and the workload ends with GUEST_LOST.
  if (pdptes.has_value()) root.pdptes = *pdptes;
  return root;
}

void GuestProcessor::LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) {
  // On a processor without second-stage translation these instructions exit.
  const Vcpu::Exit exit(vcpu_);
  cr3_ = cr3;
  pcid_ = pcid;
  vcpu_.shadow()->SetRoot(RootAt(cr3), how == Cr3Load::kFlush
                                           ? ShadowVcpu::Flush::kYes
                                           : ShadowVcpu::Flush::kNo);
}

void GuestProcessor::Invlpg(Gva gva) {
  const Vcpu::Exit exit(vcpu_);
  vcpu_.shadow()->InvalidatePage(gva.value());
}

void GuestProcessor::InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) {
  const Vcpu::Exit exit(vcpu_);
  switch (what) {
    case Invpcid::kAddress:
      return vcpu_.shadow()->InvalidatePageOf(pcid, gva.value());
    case Invpcid::kSingleContext:
      return vcpu_.shadow()->InvalidatePcid(pcid);
    case Invpcid::kAllContexts:
      return vcpu_.shadow()->InvalidateAll();
  }
}

bool GuestProcessor::Relax() {
  const Vcpu::Exit exit(vcpu_);
  ParkingPlace* const parking = vcpu_.parking();
  if (parking == nullptr || !parking->IsWanted()) {
    std::this_thread::yield();
    return true;
  }
  if (parking->Park()) return true;
  status_ = absl::CancelledError(
      "stopped while the guest waited for another of its processors");
  return false;
}

}  // namespace mmu
