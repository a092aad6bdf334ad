#include "mmu_core/vm/core/vm_config_check.h"

#include <cerrno>
#include <string>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/vm/core/mmu_mode_check.h"
#include "mmu_core/vm/core/stage2_check.h"

namespace mmu {
namespace {

absl::Status Invalid(Reason reason, const char* field,
                     const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, {reason, field, EINVAL},
                   message);
}

}  // namespace

absl::Status CheckConfig(const VmConfig& config) {
  if (RunsOnStage2(config)) {
    if (absl::Status s = CheckStage2Config(config); !s.ok()) return s;
  }
  if (config.ad_bits == VmConfig::AdBits::kOff &&
      config.format == EntryFormat::kNpt) {
    return Invalid(Reason::kInvalidMmuOption, "ad_bits",
                   "NPT always has Accessed and Dirty bits; switch them off "
                   "with EPT only");
  }
  if (config.pml == VmConfig::Pml::kYes &&
      (config.format == EntryFormat::kNpt ||
       config.ad_bits == VmConfig::AdBits::kOff)) {
    return Invalid(Reason::kInvalidMmuOption, "pml",
                   "page-modification logging is a part of EPT with Accessed "
                   "and Dirty bits; leave it out, and dirty logging takes "
                   "write permission instead");
  }
  if (config.pml == VmConfig::Pml::kYes && config.mmu == MmuMode::kTdpShadow) {
    return Invalid(Reason::kInvalidMmuOption, "pml",
                   "page-modification logging needs a TDP MMU; leave it out, "
                   "or choose an MMU that has one");
  }
  if (const int bits = HostAddressBits(config); bits < 36 || bits > 52) {
    return Invalid(Reason::kInvalidMmuOption, "host_address_bits",
                   Format("host_address_bits is %d; it must be 36 to 52, or 0 "
                          "for 46 with root_levels 4 and 52 with root_levels 5",
                          bits));
  }
  if (config.vcpu_count < 1 || config.vcpu_count > kMaxVcpus) {
    return Invalid(Reason::kInvalidVcpuCount, "vcpu_count",
                   Format("vcpu_count is %d; it must be 1 to %d",
                          config.vcpu_count, kMaxVcpus));
  }
  if (config.root_levels != 4 && config.root_levels != 5) {
    return Invalid(
        Reason::kInvalidMmuOption, "root_levels",
        Format("root_levels is %d; it must be 4 or 5", config.root_levels));
  }
  if (config.max_page_level > kMaxLeafLevel) {
    return Invalid(Reason::kInvalidMmuOption, "max_page_level",
                   "max_page_level is above 1 GiB; it must be 4 KiB, 2 MiB or "
                   "1 GiB");
  }
  if (absl::Status s = CheckMmuMode(config); !s.ok()) return s;
  if (config.dirty_ring_entries != 0) {
    return DirtyRing::CheckBytes(
        config.dirty_ring_entries * sizeof(DirtyRing::Entry),
        config.pml == VmConfig::Pml::kYes ? PmlBuffer::kEntries : 0);
  }
  if (config.companion_bitmap == VmConfig::CompanionBitmap::kYes) {
    return Invalid(Reason::kInvalidMmuOption, "companion_bitmap",
                   "companion_bitmap needs dirty rings; set "
                   "dirty_ring_entries, or leave companion_bitmap out");
  }
  return absl::OkStatus();
}

}  // namespace mmu
