#include "server/convert/mmu_convert.h"

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

absl::Status BadOption(const std::string& field, absl::string_view message) {
  return InvalidField(mmu::Reason::kInvalidMmuOption, field, message);
}

// An unset feature leaves `*on` unchanged.
absl::Status ApplyFeature(v1::Feature feature, const std::string& field,
                          bool* on) {
  switch (feature) {
    case v1::FEATURE_UNSPECIFIED:
      return absl::OkStatus();
    case v1::FEATURE_OFF:
    case v1::FEATURE_ON:
      *on = feature == v1::FEATURE_ON;
      return absl::OkStatus();
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, field,
                        static_cast<int>(feature), "ON or OFF");
  }
}

v1::Feature ToFeature(bool on) { return on ? v1::FEATURE_ON : v1::FEATURE_OFF; }

// Features of the processor other than the layout of its entries.
absl::Status ApplyFeatures(const v1::TdpMmu& tdp, const std::string& field,
                           mmu::VmConfig* config) {
  bool ad_bits = true;
  bool pml = false;
  for (const absl::Status& status :
       {ApplyFeature(tdp.accessed_dirty_bits(), field + ".accessed_dirty_bits",
                     &ad_bits),
        ApplyFeature(tdp.pml(), field + ".pml", &pml)}) {
    if (!status.ok()) return status;
  }
  config->ad_bits =
      ad_bits ? mmu::VmConfig::AdBits::kOn : mmu::VmConfig::AdBits::kOff;
  config->pml = pml ? mmu::VmConfig::Pml::kYes : mmu::VmConfig::Pml::kNo;
  return absl::OkStatus();
}

// The options that TdpMmu and ShadowMmu share.
template <typename Mmu>
absl::Status ApplyCommon(const Mmu& options, const std::string& field,
                         mmu::VmConfig* config) {
  const absl::StatusOr<mmu::Level> level = ToLevel(
      options.max_page_size(), mmu::Level::k1G, field + ".max_page_size");
  if (!level.ok()) return level.status();
  config->max_page_level = *level;
  if (options.page_table_levels() != 0) {
    config->root_levels = options.page_table_levels();
  }
  switch (options.slot_zap()) {
    case v1::SLOT_ZAP_UNSPECIFIED:
    case v1::SLOT_ZAP_ALL:
      config->slot_zap = mmu::VmConfig::SlotZap::kAll;
      break;
    case v1::SLOT_ZAP_SLOT:
      config->slot_zap = mmu::VmConfig::SlotZap::kSlot;
      break;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, field + ".slot_zap",
                        static_cast<int>(options.slot_zap()), "ALL or SLOT");
  }
  bool mmio_caching = true;
  if (absl::Status status = ApplyFeature(
          options.mmio_caching(), field + ".mmio_caching", &mmio_caching);
      !status.ok()) {
    return status;
  }
  config->mmio_caching = mmio_caching ? mmu::VmConfig::MmioCaching::kYes
                                      : mmu::VmConfig::MmioCaching::kNo;
  if (options.nx_huge_pages_opt_out()) {
    config->nx_huge_pages = mmu::VmConfig::NxHugePages::kOptOut;
  }
  return absl::OkStatus();
}

absl::Status ApplyTdp(const v1::TdpMmu& tdp, const std::string& field,
                      mmu::VmConfig* config) {
  switch (tdp.entry_format()) {
    case v1::ENTRY_FORMAT_UNSPECIFIED:
    case v1::ENTRY_FORMAT_EPT:
      config->format = mmu::EntryFormat::kEpt;
      break;
    case v1::ENTRY_FORMAT_NPT:
      config->format = mmu::EntryFormat::kNpt;
      break;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, field + ".entry_format",
                        static_cast<int>(tdp.entry_format()), "EPT or NPT");
  }
  if (absl::Status status = ApplyCommon(tdp, field, config); !status.ok()) {
    return status;
  }
  return ApplyFeatures(tdp, field, config);
}

absl::Status ApplyStage2(const v1::Stage2Mmu& options, const std::string& field,
                         mmu::VmConfig* config) {
  mmu::Stage2Config& stage2 = config->stage2;
  bool access_flag = false;
  bool dirty_state = false;
  bool tlbi_range = false;
  for (const absl::Status& status :
       {ApplyFeature(options.hardware_access_flag(),
                     field + ".hardware_access_flag", &access_flag),
        ApplyFeature(options.hardware_dirty_state(),
                     field + ".hardware_dirty_state", &dirty_state),
        ApplyFeature(options.tlbi_range(), field + ".tlbi_range",
                     &tlbi_range)}) {
    if (!status.ok()) return status;
  }
  const absl::StatusOr<mmu::Level> level = ToLevel(
      options.max_page_size(), mmu::Level::k1G, field + ".max_page_size");
  if (!level.ok()) return level.status();
  if (options.granule_bytes() < 0 ||
      options.granule_bytes() > std::numeric_limits<uint32_t>::max()) {
    return WrongValue(mmu::Reason::kInvalidMmuOption, field + ".granule_bytes",
                      options.granule_bytes(), "4096, 16384 or 65536");
  }
  const absl::StatusOr<uint64_t> chunk = ToEagerSplitChunk(
      options.eager_split_chunk_bytes(), field + ".eager_split_chunk_bytes");
  if (!chunk.ok()) return chunk.status();
  config->max_page_level = *level;
  if (options.granule_bytes() != 0) {
    stage2.granule_bytes = static_cast<uint32_t>(options.granule_bytes());
  }
  if (options.ipa_bits() != 0) stage2.ipa_bits = options.ipa_bits();
  if (options.has_start_level()) stage2.start_level = options.start_level();
  stage2.bbm_level = options.bbm_level();
  stage2.eager_split_chunk_bytes = *chunk;
  stage2.access_flag = access_flag ? mmu::Stage2Config::AccessFlag::kByHardware
                                   : mmu::Stage2Config::AccessFlag::kByFault;
  stage2.dirty_state = dirty_state ? mmu::Stage2Config::DirtyState::kByHardware
                                   : mmu::Stage2Config::DirtyState::kByFault;
  stage2.tlbi_range = tlbi_range ? mmu::Stage2Config::TlbiRange::kYes
                                 : mmu::Stage2Config::TlbiRange::kNo;
  return absl::OkStatus();
}

// mmu_core checks which of these values may be combined.
absl::Status ApplyGuestPaging(const v1::GuestPaging& proto,
                              const std::string& field, mmu::VmConfig* config) {
  using Paging = mmu::GuestPagingConfig;
  // Checked here, because mmu_core cannot tell whether the request has a
  // guest_paging: mmu::VmConfig always has one, and such an MMU ignores it.
  if (!mmu::GuestHasTables(*config)) {
    return BadOption(field,
                     "guest_paging is set, but the MMU does not look at the "
                     "guest's tables; leave it out, or choose shadow or "
                     "nested");
  }
  Paging& paging = config->guest_paging;
  switch (proto.mode()) {
    case v1::GUEST_PAGING_MODE_UNSPECIFIED:
    case v1::GUEST_PAGING_MODE_4LEVEL:
      paging.mode = Paging::Mode::k4Level;
      break;
    case v1::GUEST_PAGING_MODE_32BIT:
      paging.mode = Paging::Mode::k32Bit;
      break;
    case v1::GUEST_PAGING_MODE_PAE:
      paging.mode = Paging::Mode::kPae;
      break;
    case v1::GUEST_PAGING_MODE_5LEVEL:
      paging.mode = Paging::Mode::k5Level;
      break;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, field + ".mode",
                        static_cast<int>(proto.mode()),
                        "32BIT, PAE, 4LEVEL or 5LEVEL");
  }
  bool large_pages = false;
  bool ad_bits = true;
  for (const absl::Status& status :
       {ApplyFeature(proto.large_pages(), field + ".large_pages", &large_pages),
        ApplyFeature(proto.accessed_dirty_bits(),
                     field + ".accessed_dirty_bits", &ad_bits)}) {
    if (!status.ok()) return status;
  }
  paging.large_pages =
      large_pages ? Paging::LargePages::kYes : Paging::LargePages::kNo;
  paging.ad_bits = ad_bits ? Paging::AdBits::kOn : Paging::AdBits::kOff;
  if (proto.process_count() != 0) paging.processes = proto.process_count();
  return absl::OkStatus();
}

// Sets the options of the chosen MMU.
absl::Status ApplyChosen(const v1::Vm& vm, const std::string& path,
                         mmu::VmConfig* config) {
  switch (vm.mmu_case()) {
    case v1::Vm::MMU_NOT_SET:
      break;
    case v1::Vm::kTdp:
      return ApplyTdp(vm.tdp(), path, config);
    case v1::Vm::kTdpShadow:
      config->mmu = mmu::MmuMode::kTdpShadow;
      return ApplyTdp(vm.tdp_shadow(), path, config);
    case v1::Vm::kNested:
      config->mmu = mmu::MmuMode::kNested;
      return ApplyTdp(vm.nested(), path, config);
    case v1::Vm::kShadow:
      config->mmu = mmu::MmuMode::kShadow;
      config->format = mmu::EntryFormat::kNpt;
      return ApplyCommon(vm.shadow(), path, config);
    case v1::Vm::kStage2:
      config->mmu = mmu::MmuMode::kStage2;
      return ApplyStage2(vm.stage2(), path, config);
  }
  return BadOption(path, absl::StrCat(path,
                                      " is not set, or to a kind that this "
                                      "daemon does not know; it must be tdp, "
                                      "tdp_shadow, shadow, nested or stage2"));
}

v1::GuestPagingMode ToProto(mmu::GuestPagingConfig::Mode mode) {
  switch (mode) {
    case mmu::GuestPagingConfig::Mode::k32Bit:
      return v1::GUEST_PAGING_MODE_32BIT;
    case mmu::GuestPagingConfig::Mode::kPae:
      return v1::GUEST_PAGING_MODE_PAE;
    case mmu::GuestPagingConfig::Mode::k4Level:
      return v1::GUEST_PAGING_MODE_4LEVEL;
    case mmu::GuestPagingConfig::Mode::k5Level:
      return v1::GUEST_PAGING_MODE_5LEVEL;
  }
  return v1::GUEST_PAGING_MODE_UNSPECIFIED;
}

template <typename Mmu>
void FillCommon(const mmu::VmConfig& config, Mmu* options) {
  options->set_max_page_size(ToPageSize(config.max_page_level));
  options->set_page_table_levels(config.root_levels);
  options->set_slot_zap(config.slot_zap == mmu::VmConfig::SlotZap::kAll
                            ? v1::SLOT_ZAP_ALL
                            : v1::SLOT_ZAP_SLOT);
  options->set_mmio_caching(
      ToFeature(config.mmio_caching == mmu::VmConfig::MmioCaching::kYes));
  options->set_nx_huge_pages_opt_out(config.nx_huge_pages ==
                                     mmu::VmConfig::NxHugePages::kOptOut);
}

void FillTdp(const mmu::VmConfig& config, v1::TdpMmu* tdp) {
  FillCommon(config, tdp);
  tdp->set_entry_format(config.format == mmu::EntryFormat::kEpt
                            ? v1::ENTRY_FORMAT_EPT
                            : v1::ENTRY_FORMAT_NPT);
  tdp->set_accessed_dirty_bits(
      ToFeature(config.ad_bits == mmu::VmConfig::AdBits::kOn));
  tdp->set_pml(ToFeature(config.pml == mmu::VmConfig::Pml::kYes));
}

void FillStage2(const mmu::VmConfig& config, v1::Stage2Mmu* proto) {
  const mmu::Stage2Config& stage2 = config.stage2;
  proto->set_granule_bytes(stage2.granule_bytes);
  proto->set_ipa_bits(stage2.ipa_bits);
  if (stage2.start_level.has_value()) {
    proto->set_start_level(*stage2.start_level);
  }
  proto->set_bbm_level(stage2.bbm_level);
  proto->set_hardware_access_flag(ToFeature(
      stage2.access_flag == mmu::Stage2Config::AccessFlag::kByHardware));
  proto->set_hardware_dirty_state(ToFeature(
      stage2.dirty_state == mmu::Stage2Config::DirtyState::kByHardware));
  proto->set_tlbi_range(
      ToFeature(stage2.tlbi_range == mmu::Stage2Config::TlbiRange::kYes));
  proto->set_max_page_size(ToPageSize(config.max_page_level));
  for (const uint64_t size : mmu::Stage2LeafSizes(stage2.granule_bytes)) {
    proto->add_supported_block_bytes(static_cast<int64_t>(size));
  }
}

void FillGuestPaging(const mmu::GuestPagingConfig& paging,
                     v1::GuestPaging* proto) {
  proto->set_mode(ToProto(paging.mode));
  proto->set_large_pages(ToFeature(paging.large_pages ==
                                   mmu::GuestPagingConfig::LargePages::kYes));
  proto->set_process_count(paging.processes);
  proto->set_accessed_dirty_bits(
      ToFeature(paging.ad_bits == mmu::GuestPagingConfig::AdBits::kOn));
}

}  // namespace

absl::StatusOr<uint64_t> ToShadowPageLimit(int32_t limit,
                                           absl::string_view field,
                                           mmu::Reason reason) {
  if (limit >= 0) return static_cast<uint64_t>(limit);
  return WrongValue(reason, field, limit, "a number of pages, not below 0");
}

absl::StatusOr<uint64_t> ToEagerSplitChunk(int64_t bytes,
                                           absl::string_view field) {
  if (bytes >= 0) return static_cast<uint64_t>(bytes);
  return WrongValue(mmu::Reason::kInvalidMmuOption, field, bytes,
                    "0, which splits nothing ahead, or the size of a page or "
                    "block of the granule (supported_block_bytes)");
}

absl::Status ApplyMmu(const v1::Vm& vm, absl::string_view field,
                      mmu::VmConfig* config) {
  absl::Status status =
      ApplyChosen(vm, absl::StrCat(field, ".", MmuName(vm)), config);
  if (!status.ok()) return status;
  if (vm.has_guest_paging()) {
    status = ApplyGuestPaging(vm.guest_paging(),
                              absl::StrCat(field, ".guest_paging"), config);
    if (!status.ok()) return status;
  }
  const absl::StatusOr<uint64_t> limit = ToShadowPageLimit(
      vm.shadow_page_limit(), absl::StrCat(field, ".shadow_page_limit"),
      mmu::Reason::kInvalidMmuOption);
  if (!limit.ok()) return limit.status();
  config->shadow_page_limit = *limit;
  return absl::OkStatus();
}

absl::Status InMmuFields(const absl::Status& status, const v1::Vm& vm) {
  const std::string mmu = absl::StrCat("vm.", MmuName(vm));
  return InFields(
      status,
      {{"vm.root_levels", mmu + ".page_table_levels"},
       {"vm.ad_bits", mmu + ".accessed_dirty_bits"},
       {"vm.pml", mmu + ".pml"},
       {"vm.max_page_level", mmu + ".max_page_size"},
       {"vm.format", mmu + ".entry_format"},
       {"vm.stage2.access_flag", mmu + ".hardware_access_flag"},
       {"vm.stage2.dirty_state", mmu + ".hardware_dirty_state"},
       {"vm.guest_paging.processes", "vm.guest_paging.process_count"},
       {"vm.guest_paging.ad_bits", "vm.guest_paging.accessed_dirty_bits"}});
}

void FillMmu(const mmu::VmConfig& config, v1::Vm* proto) {
  switch (config.mmu) {
    case mmu::MmuMode::kTdp:
      return FillTdp(config, proto->mutable_tdp());
    case mmu::MmuMode::kTdpShadow:
      return FillTdp(config, proto->mutable_tdp_shadow());
    case mmu::MmuMode::kShadow:
      FillCommon(config, proto->mutable_shadow());
      break;
    case mmu::MmuMode::kNested:
      FillTdp(config, proto->mutable_nested());
      break;
    case mmu::MmuMode::kStage2:
      return FillStage2(config, proto->mutable_stage2());
  }
  FillGuestPaging(config.guest_paging, proto->mutable_guest_paging());
}

std::string MmuName(const v1::Vm& vm) {
  const google::protobuf::FieldDescriptor* chosen =
      vm.GetReflection()->GetOneofFieldDescriptor(
          vm, vm.GetDescriptor()->FindOneofByName("mmu"));
  return chosen == nullptr ? "mmu" : chosen->name();
}

}  // namespace mmud
