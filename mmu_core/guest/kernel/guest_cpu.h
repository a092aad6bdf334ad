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

// Whether loading CR3 flushes the TLB entries of that address space (bit 63 of
// the value with PCIDs; SDM vol. 3, 4.10.4.1).
enum class Cr3Load : uint8_t { kFlush, kKeep };

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

  // Switches paging on, with tables of this geometry. Called once.
  virtual void EnablePaging(const PagingGeometry& geometry, Gpa cr3) = 0;
  virtual void LoadCr3(Gpa cr3, Cr3Load how) = 0;
  virtual void Invlpg(Gva gva) = 0;

  virtual absl::Status status() const = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_GUEST_CPU_H_
