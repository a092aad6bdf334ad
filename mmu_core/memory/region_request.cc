#include "mmu_core/memory/region_request.h"

#include <cerrno>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {
namespace {

constexpr uint32_t kLegalFlags = kMemslotLogDirtyPages | kMemslotReadonly;

absl::Status CheckUserRange(const RegionRequest& request,
                            uint64_t host_page_bytes) {
  const uint64_t hva = request.userspace_addr.value();
  const uint64_t size = request.size_bytes;
  if (hva % host_page_bytes != 0) {
    return RegionError(
        Reason::kUnaligned, "userspace_addr", EINVAL,
        Format("userspace_addr is 0x%x, but must be a multiple of "
               "%d; align it",
               hva, host_page_bytes));
  }
  if (hva > kUserAddressEnd || size > kUserAddressEnd - hva) {
    return RegionError(
        Reason::kInvalidRange, "userspace_addr", EINVAL,
        Format("userspace_addr is 0x%x, but with size_bytes %d it "
               "must end at or below 0x%x; use an untagged user "
               "address",
               hva, size, kUserAddressEnd));
  }
  if (size > 0 && request.backing != nullptr &&
      !request.backing->Contains(request.userspace_addr, size)) {
    return RegionError(
        Reason::kInvalidRange, "userspace_addr", EINVAL,
        Format("userspace_addr is 0x%x, but with size_bytes %d it "
               "must lie in its backing of %d bytes at 0x%x; use a "
               "part of the backing",
               hva, size, request.backing->size_bytes(),
               request.backing->hva().value()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RegionError(Reason reason, const char* field, int kvm_errno,
                         const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   {reason, field, kvm_errno}, message);
}

absl::Status CheckRegionRequest(const RegionRequest& request,
                                int address_spaces, uint64_t host_page_bytes) {
  if (request.id() >= kUserMemslots) {  // SLOT-01
    return RegionError(
        Reason::kInvalidSlot, "slot", EINVAL,
        Format("slot has id %d, but ids end at %d; use a smaller id",
               request.id(), kUserMemslots - 1));
  }
  if ((request.flags & ~kLegalFlags) != 0) {  // SLOT-02
    return RegionError(
        Reason::kInvalidFlags, "flags", EINVAL,
        Format("flags is 0x%x, but only 0x1 (log dirty pages) and 0x2 "
               "(read-only) exist; clear the other bits",
               request.flags));
  }
  if (request.size_bytes % host_page_bytes != 0) {  // SLOT-03
    return RegionError(Reason::kUnaligned, "size_bytes", EINVAL,
                       Format("size_bytes is %d, but must be a multiple of %d; "
                              "round it",
                              request.size_bytes, host_page_bytes));
  }
  if (request.gpa.value() % host_page_bytes != 0) {  // SLOT-03
    return RegionError(Reason::kUnaligned, "gpa", EINVAL,
                       Format("gpa is 0x%x, but must be a multiple of %d; "
                              "align it",
                              request.gpa.value(), host_page_bytes));
  }
  // SLOT-04
  if (absl::Status status = CheckUserRange(request, host_page_bytes);
      !status.ok()) {
    return status;
  }
  if (request.as_id() >= address_spaces) {  // SLOT-05
    return RegionError(
        Reason::kInvalidSlot, "slot", EINVAL,
        Format("slot has address space %d in its high 16 bits, but "
               "the VM has %d; use a smaller one",
               request.as_id(), address_spaces));
  }
  const uint64_t gpa = request.gpa.value();
  if (gpa + request.size_bytes < gpa) {  // SLOT-06
    return RegionError(Reason::kGpaOutOfRange, "gpa", EINVAL,
                       Format("gpa is 0x%x, but adding size_bytes %d must not "
                              "exceed 64 bits; use a lower address",
                              gpa, request.size_bytes));
  }
  return CheckSlotSize(request.size_bytes);  // SLOT-07
}

absl::Status CheckSlotSize(uint64_t size_bytes) {
  const uint64_t npages = size_bytes >> kPageShift;
  if (npages <= kMaxMemslotPages) return absl::OkStatus();
  return RegionError(
      Reason::kTooManyPages, "size_bytes", EINVAL,
      Format("size_bytes is %d, that is %d pages, but a slot has at "
             "most %d; use several slots",
             size_bytes, npages, kMaxMemslotPages));
}

}  // namespace mmu
