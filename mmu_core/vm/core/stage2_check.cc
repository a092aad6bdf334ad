#include "mmu_core/vm/core/stage2_check.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stage2/any_granule.h"
#include "mmu_core/stage2/s2_shape.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"

namespace mmu {
namespace {

absl::Status Invalid(const std::string& field, const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   {Reason::kInvalidMmuOption, field, EINVAL}, message);
}

// Options that have a meaning only for x86 tables.
absl::Status CheckNoX86Options(const VmConfig& config) {
  const VmConfig plain;
  const char* field = nullptr;
  if (config.format != plain.format) field = "format";
  if (config.ad_bits != plain.ad_bits) field = "ad_bits";
  if (config.pml != plain.pml) field = "pml";
  if (config.root_levels != plain.root_levels) field = "root_levels";
  if (config.nx_huge_pages != plain.nx_huge_pages) field = "nx_huge_pages";
  if (config.shadow_page_limit != 0) field = "shadow_page_limit";
  if (config.guest_paging != plain.guest_paging) field = "guest_paging";
  if (config.mmio_caching != plain.mmio_caching) field = "mmio_caching";
  if (config.slot_zap != plain.slot_zap) field = "slot_zap";
  if (field == nullptr) return absl::OkStatus();
  return Invalid(field, Format("%s is set, but it is an option of x86 tables, "
                               "and the VM's MMU is stage 2; leave it out",
                               field));
}

absl::Status CheckIpaBits(int bits) {
  if (bits > kMaxIpaBits && bits <= 52) {
    return Invalid(
        "stage2.ipa_bits",
        Format("stage2.ipa_bits is %d; more than %d need FEAT_LPA or "
               "FEAT_LPA2, which this MMU does not have; it must be "
               "%d to %d",
               bits, kMaxIpaBits, kMinIpaBits, kMaxIpaBits));
  }
  if (bits >= kMinIpaBits && bits <= kMaxIpaBits) return absl::OkStatus();
  return Invalid("stage2.ipa_bits",
                 Format("stage2.ipa_bits is %d; it must be %d to %d", bits,
                        kMinIpaBits, kMaxIpaBits));
}

template <TableGeometry G>
absl::Status CheckStartLevel(int ipa_bits, int start_level) {
  if (start_level >= 0 && start_level <= 3 &&
      ShapeFrom<G>(ipa_bits, FromArmLevel(start_level)).has_value()) {
    return absl::OkStatus();
  }
  std::string possible;
  for (int level = 0; level <= 3; ++level) {
    if (!ShapeFrom<G>(ipa_bits, FromArmLevel(level)).has_value()) continue;
    possible += Format("%s%d", possible.empty() ? "" : " or ", level);
  }
  return Invalid(
      "stage2.start_level",
      Format("stage2.start_level is %d; with granules of %d KiB and "
             "stage2.ipa_bits %d it must be %s, or left out",
             start_level, G::kGranuleBytes >> 10, ipa_bits, possible));
}

absl::Status CheckBbmLevel(int level) {
  if (level == 0 || level == 2) return absl::OkStatus();
  if (level == 1) {
    return Invalid("stage2.bbm_level",
                   "stage2.bbm_level is 1, which this MMU does not have: it "
                   "would have to use the nT bit; it must be 0 or 2");
  }
  return Invalid("stage2.bbm_level",
                 Format("stage2.bbm_level is %d; it must be 0 or 2", level));
}

absl::Status CheckDirtyState(const VmConfig& config) {
  const Stage2Config& stage2 = config.stage2;
  if (stage2.dirty_state == Stage2Config::DirtyState::kByFault) {
    return absl::OkStatus();
  }
  if (stage2.access_flag == Stage2Config::AccessFlag::kByFault) {
    return Invalid("stage2.dirty_state",
                   "the dirty state is kept by hardware, which no processor "
                   "does without the Access flag by hardware; switch that on, "
                   "too");
  }
  if (config.dirty_ring_entries != 0) {
    return Invalid(
        "stage2.dirty_state",
        Format("the dirty state is kept by hardware, and the VM has dirty "
               "rings of %d entries; a write that the hardware notes adds no "
               "entry to a ring; leave one of them out",
               config.dirty_ring_entries));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckEagerSplitChunk(uint32_t granule_bytes, uint64_t bytes,
                                  const std::string& field) {
  const std::vector<uint64_t> sizes = Stage2LeafSizes(granule_bytes);
  if (bytes == 0 || std::count(sizes.begin(), sizes.end(), bytes) != 0) {
    return absl::OkStatus();
  }
  std::string possible;
  for (const uint64_t size : sizes) possible += Format(", %d", size);
  return Invalid(field,
                 Format("%s is %d; with granules of %d KiB it must be 0, "
                        "which splits nothing ahead, or the size of a "
                        "page or block%s",
                        field, bytes, granule_bytes >> 10, possible));
}

absl::Status CheckStage2Config(const VmConfig& config) {
  const Stage2Config& stage2 = config.stage2;
  if (!IsGranule(stage2.granule_bytes)) {
    return Invalid("stage2.granule_bytes",
                   Format("stage2.granule_bytes is %d; it must be 4096, 16384 "
                          "or 65536",
                          stage2.granule_bytes));
  }
  if (absl::Status s = CheckIpaBits(stage2.ipa_bits); !s.ok()) return s;
  if (stage2.start_level.has_value()) {
    absl::Status status;
    WithGranule(stage2.granule_bytes, [&]<typename G>() {
      status = CheckStartLevel<G>(stage2.ipa_bits, *stage2.start_level);
    });
    if (!status.ok()) return status;
  }
  if (absl::Status s = CheckBbmLevel(stage2.bbm_level); !s.ok()) return s;
  if (absl::Status s = CheckEagerSplitChunk(stage2.granule_bytes,
                                            stage2.eager_split_chunk_bytes,
                                            "stage2.eager_split_chunk_bytes");
      !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckDirtyState(config); !s.ok()) return s;
  return CheckNoX86Options(config);
}

}  // namespace mmu
