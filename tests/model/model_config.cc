#include "tests/model/model_config.h"

#include <array>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/testing/mmu_mode_names.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"

namespace mmu::testing {
namespace {

constexpr std::array<MmuMode, 5> kModes = {MmuMode::kTdp, MmuMode::kTdpShadow,
                                           MmuMode::kShadow, MmuMode::kNested,
                                           MmuMode::kStage2};

// One in `n`.
bool OneIn(Rng& rng, uint64_t n) { return UniformBelow(rng, n) == 0; }

void ChooseGuestPaging(Rng& rng, ModelConfig& config) {
  using Mode = GuestPagingConfig::Mode;
  constexpr std::array<Mode, 4> kPaging = {Mode::k4Level, Mode::kPae,
                                           Mode::k32Bit, Mode::k5Level};
  const bool nested = config.vm.mmu == MmuMode::kNested;
  config.paging = kPaging[UniformBelow(rng, kPaging.size())];
  if (nested && config.paging != Mode::k5Level) config.paging = Mode::k4Level;
  if (config.paging == Mode::k5Level) config.vm.root_levels = 5;
  config.wp = !OneIn(rng, 3);
  config.smep = OneIn(rng, 3);
  config.smap = OneIn(rng, 3);
  const bool ept = nested && config.vm.format == EntryFormat::kEpt;
  config.ept_ad_bits = !OneIn(rng, 3);
  config.ept_exec_only = OneIn(rng, 2) && ept;
  config.vm.guest_paging.mode = config.paging;
  if (ept && !config.ept_ad_bits) {
    config.vm.guest_paging.ad_bits = GuestPagingConfig::AdBits::kOff;
  }
}

void ChooseLog(Rng& rng, VmConfig& vm) {
  if (vm.mmu != MmuMode::kTdpShadow && HasAdBits(vm) &&
      vm.format == EntryFormat::kEpt && OneIn(rng, 2)) {
    vm.pml = VmConfig::Pml::kYes;
  }
  if (!OneIn(rng, 2)) return;
  // With PML a ring has room for all of a CPU's log.
  vm.dirty_ring_entries = vm.pml == VmConfig::Pml::kYes ? 1024 : 256;
  if (OneIn(rng, 2)) vm.companion_bitmap = VmConfig::CompanionBitmap::kYes;
}

// In place of the options of x86.
void ChooseStage2(Rng& rng, ModelConfig& config) {
  VmConfig& vm = config.vm;
  Stage2Config& stage2 = vm.stage2;
  constexpr std::array<uint32_t, 3> kGranules = {4096, 16384, 65536};
  stage2.granule_bytes = kGranules[UniformBelow(rng, kGranules.size())];
  stage2.bbm_level = OneIn(rng, 2) ? 0 : 2;
  const std::vector<uint64_t> sizes = Stage2LeafSizes(stage2.granule_bytes);
  const uint64_t chunk = UniformBelow(rng, sizes.size() + 1);
  stage2.eager_split_chunk_bytes = chunk == 0 ? 0 : sizes[chunk - 1];
  if (OneIn(rng, 2)) {
    stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
    if (OneIn(rng, 2)) {
      stage2.dirty_state = Stage2Config::DirtyState::kByHardware;
    }
  }
  if (OneIn(rng, 2)) stage2.tlbi_range = Stage2Config::TlbiRange::kYes;
  if (stage2.dirty_state == Stage2Config::DirtyState::kByFault &&
      OneIn(rng, 2)) {
    vm.dirty_ring_entries = 256;
    if (OneIn(rng, 2)) vm.companion_bitmap = VmConfig::CompanionBitmap::kYes;
  }
  if (OneIn(rng, 4)) vm.max_page_level = Level::k4K;
}

std::string DescribeStage2(const ModelConfig& config) {
  const Stage2Config& stage2 = config.vm.stage2;
  return absl::StrCat(
      "seed ", config.seed, ": stage2, granules of ", stage2.granule_bytes,
      " bytes, BBM level ", stage2.bbm_level, ", split by ",
      stage2.eager_split_chunk_bytes,
      stage2.access_flag == Stage2Config::AccessFlag::kByHardware
          ? ", hardware Access flag"
          : "",
      stage2.dirty_state == Stage2Config::DirtyState::kByHardware
          ? ", hardware dirty state"
          : "",
      stage2.tlbi_range == Stage2Config::TlbiRange::kYes ? ", TLBI by range"
                                                         : "");
}

}  // namespace

uint64_t PagesPerGranule(const VmConfig& vm) {
  return HostPageBytes(vm) / kPageSize;
}

uint64_t ScaleOf(const VmConfig& vm) {
  return PagesPerGranule(vm) * PagesPerGranule(vm);
}

ModelConfig RandomModelConfig(uint64_t seed, absl::optional<MmuMode> mmu) {
  Rng rng(MixBits(seed));
  ModelConfig config;
  config.seed = seed;
  VmConfig& vm = config.vm;
  const MmuMode chosen = kModes[UniformBelow(rng, kModes.size())];
  vm.mmu = mmu.value_or(chosen);
  if (RunsOnStage2(vm)) {
    ChooseStage2(rng, config);
    return config;
  }
  vm.format = OneIn(rng, 2) ? EntryFormat::kEpt : EntryFormat::kNpt;
  if (vm.mmu == MmuMode::kShadow) vm.format = EntryFormat::kNpt;
  vm.root_levels = OneIn(rng, 4) ? 5 : 4;
  if (vm.format == EntryFormat::kEpt && OneIn(rng, 3)) {
    vm.ad_bits = VmConfig::AdBits::kOff;
  }
  if (GuestHasTables(vm)) ChooseGuestPaging(rng, config);
  ChooseLog(rng, vm);
  if (HasShadowPages(vm) && OneIn(rng, 2)) vm.shadow_page_limit = 64;
  if (OneIn(rng, 4)) vm.mmio_caching = VmConfig::MmioCaching::kNo;
  if (OneIn(rng, 2)) vm.slot_zap = VmConfig::SlotZap::kSlot;
  if (OneIn(rng, 4)) vm.max_page_level = Level::k4K;
  config.guest_host_level = OneIn(rng, 2) ? Level::k4K : Level::k2M;
  config.nx_huge_pages = OneIn(rng, 3);
  return config;
}

std::string Describe(const ModelConfig& config) {
  const VmConfig& vm = config.vm;
  std::string text =
      RunsOnStage2(vm)
          ? DescribeStage2(config)
          : absl::StrCat("seed ", config.seed, ": ", ToString(vm.mmu), ", ",
                         vm.format == EntryFormat::kEpt ? "EPT" : "NPT",
                         HasAdBits(vm) ? "" : " without A/D bits",
                         vm.pml == VmConfig::Pml::kYes ? " and PML" : "", ", ",
                         vm.root_levels, " levels");
  absl::StrAppend(
      &text, ", ",
      vm.dirty_ring_entries == 0
          ? "bitmaps"
          : absl::StrCat("rings of ", vm.dirty_ring_entries),
      vm.companion_bitmap == VmConfig::CompanionBitmap::kYes
          ? " and companion bitmaps"
          : "",
      config.nx_huge_pages ? ", NX huge pages" : "",
      vm.mmio_caching == VmConfig::MmioCaching::kNo ? ", no MMIO SPTEs" : "",
      vm.slot_zap == VmConfig::SlotZap::kSlot ? ", slots zapped alone" : "",
      vm.max_page_level == Level::k4K ? ", no large pages" : "",
      vm.shadow_page_limit != 0
          ? absl::StrCat(", limit of ", vm.shadow_page_limit, " shadow pages")
          : "");
  if (!GuestHasTables(vm)) return text;
  constexpr std::array<const char*, 4> kPaging = {"32-bit", "PAE", "4 levels",
                                                  "5 levels"};
  absl::StrAppend(
      &text,
      "; the guest's tables: ", kPaging[static_cast<size_t>(config.paging)],
      config.guest_host_level == Level::k4K ? ""
                                            : " in huge pages of the host");
  if (vm.mmu == MmuMode::kShadow) {
    absl::StrAppend(&text, config.wp ? "" : ", WP off",
                    config.smep ? ", SMEP" : "", config.smap ? ", SMAP" : "");
  } else if (vm.format == EntryFormat::kEpt) {
    absl::StrAppend(&text, config.ept_ad_bits ? "" : ", without A/D bits",
                    config.ept_exec_only ? ", execute-only" : "");
  }
  return text;
}

}  // namespace mmu::testing
