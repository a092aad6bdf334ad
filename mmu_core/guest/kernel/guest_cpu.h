// The interface between a guest's kernel and its processor: accesses by virtual
// address that may fault, and the registers and instructions that control
// translation.

#ifndef MMU_CORE_GUEST_KERNEL_GUEST_CPU_H_
#define MMU_CORE_GUEST_KERNEL_GUEST_CPU_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/paging_geometry.h"

namespace mmu {

struct GuestPageFault {
  Gva address;              // CR2
  uint64_t error_code = 0;  // bits: guest_paging/guest_walk.h
};

// A process-context identifier: the tag of the translations that the processor
// caches. 12 bits; 0 while the processor does not use PCIDs (CR4.PCIDE, which
// exists in 4-level and 5-level paging only; SDM vol. 3, 4.10.1).
using Pcid = uint16_t;
inline constexpr Pcid kMaxPcid = 0xfff;

// Whether loading CR3 drops the cached translations of the PCID that is loaded
// (bit 63 of the value; SDM vol. 3, 4.10.4.1). Without PCIDs every load drops
// all translations, so only kFlush is allowed.
enum class Cr3Load : uint8_t { kFlush, kKeep };

// What INVPCID invalidates (SDM vol. 3, 4.10.4.1).
enum class Invpcid : uint8_t {
  kAddress,        // one address of one PCID
  kSingleContext,  // one PCID
  kAllContexts,    // everything
};

// Thread-compatible: one thread runs the guest.
class GuestCpu {
 public:
  enum class Outcome : uint8_t { kDone, kFault, kError };

  virtual ~GuestCpu() = default;

  // Makes one access to the `size_bytes` (4 or 8, aligned) at `gva`. A write
  // stores the low bytes of `*word`; a read or fetch loads into `*word`.
  // kFault: the access did not happen and `*fault` is the guest's page fault.
  // kError: the host could not perform the access, see status(). With paging
  // off `gva` is a guest-physical address.
  virtual Outcome Access(Gva gva, int size_bytes, AccessKind kind,
                         Privilege privilege, uint64_t* word,
                         GuestPageFault* fault) = 0;

  // Switches paging on, with tables of this geometry, with PCIDs if the
  // geometry has them, and with PCID 0. Called once.
  virtual void EnablePaging(const PagingGeometry& geometry, Gpa cr3) = 0;
  virtual void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) = 0;
  // For the current PCID.
  virtual void Invlpg(Gva gva) = 0;
  // `pcid` and `gva` count only for the kinds that name them. Only with PCIDs.
  virtual void InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) = 0;

  // PAUSE, in a loop that waits for another CPU of the guest. The host may let
  // the vCPU stand still here. False: the guest is to stop, as status() says.
  virtual bool Relax() = 0;

  // Why the last Access was kError, or the last Relax false.
  virtual absl::Status status() const = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_GUEST_CPU_H_
