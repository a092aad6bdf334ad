#include "tests/stress/round_config.h"

#include <algorithm>
#include <array>
#include <random>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmu_core/testing/mmu_mode_names.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"

namespace mmu::stress {
namespace {

// Chooses the values that depend on the mode.
void ChooseGuestPaging(std::mt19937_64& random, absl::optional<Smp> smp,
                       RoundConfig* config) {
  using Mode = GuestPagingConfig::Mode;
  GuestPagingConfig& paging = config->guest_paging;
  const bool shadow = config->mmu == MmuMode::kShadow;
  if (shadow) config->format = EntryFormat::kNpt;
  constexpr Mode kModes[] = {Mode::k4Level, Mode::k32Bit, Mode::kPae,
                             Mode::k5Level};
  paging.mode = kModes[random() % 4];
  if (!shadow && (paging.mode == Mode::k32Bit || paging.mode == Mode::kPae)) {
    paging.mode = Mode::k4Level;
  }
  if (paging.mode == Mode::k5Level) config->root_levels = 5;
  // Each process has at least one large page, besides its tables.
  const uint64_t large = paging.mode == Mode::k32Bit ? 1024 : 512;
  const uint64_t share =
      (kMigratedPages + kOtherPages) / static_cast<uint64_t>(config->vcpus) -
      100;
  paging.processes = static_cast<int>(1 + random() % 4);
  if (random() % 2 == 0 && share >= large) {
    paging.large_pages = GuestPagingConfig::LargePages::kYes;
    paging.processes =
        std::min(paging.processes, static_cast<int>(share / large));
  }
  if (random() % 3 == 0 && config->mmu == MmuMode::kNested &&
      config->format == EntryFormat::kEpt) {
    paging.ad_bits = GuestPagingConfig::AdBits::kOff;
  }
  constexpr std::array<uint64_t, 5> kLimits = {0, 64, 100, 400, 2000};
  config->shadow_page_limit = kLimits[random() % kLimits.size()];
  if (config->mmu == MmuMode::kTdpShadow) return;  // no page tables of its own
  const Smp drawn = random() % 2 == 0 ? Smp::kYes : Smp::kNo;
  config->smp = smp.value_or(drawn);
  if (config->smp == Smp::kNo) return;
  config->vcpus = std::max(config->vcpus, 2);
  if (config->mmu == MmuMode::kNested) {
    paging.large_pages = GuestPagingConfig::LargePages::kNo;
  }
}

// Draws from a stream of its own, so that the other values of a seed stay.
TlbOptions ChooseTlb(uint64_t seed) {
  std::mt19937_64 random(~seed);
  TlbOptions tlb;
  tlb.seed = seed;
  const uint64_t kind = random() % 4;
  if (kind != 0) tlb.flushes = TlbOptions::Flushes::kPrecise;
  tlb.evictions = kind == 1 ? TlbOptions::Evictions::kRandom
                            : TlbOptions::Evictions::kNever;
  return tlb;
}

// As ChooseTlb.
void ChooseStage2(uint64_t seed, const RoundChoices& choices,
                  RoundConfig* config) {
  std::mt19937_64 random(~seed ^ 0x737461676532);
  config->format = EntryFormat::kEpt;
  config->ad_bits = true;
  config->root_levels = 4;
  config->nx_huge_pages = false;
  config->mmio_caching = VmConfig::MmioCaching::kYes;
  config->slot_zap = VmConfig::SlotZap::kAll;
  Stage2Config& stage2 = config->stage2;
  constexpr std::array<uint32_t, 3> kGranules = {4096, 16384, 65536};
  const uint32_t granule = kGranules[random() % 3];
  stage2.granule_bytes = choices.granule_bytes.value_or(granule);
  const int bbm_level = random() % 2 == 0 ? 0 : 2;
  stage2.bbm_level = choices.bbm_level.value_or(bbm_level);
  const std::vector<uint64_t> sizes = Stage2LeafSizes(stage2.granule_bytes);
  const uint64_t chunk = random() % (sizes.size() + 1);
  stage2.eager_split_chunk_bytes = chunk == 0 ? 0 : sizes[chunk - 1];
  if (random() % 2 == 0) {
    stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
    if (random() % 2 == 0 && config->dirty_ring_entries == 0) {
      stage2.dirty_state = Stage2Config::DirtyState::kByHardware;
    }
  }
  if (random() % 2 == 0) stage2.tlbi_range = Stage2Config::TlbiRange::kYes;
  // No block of the larger granules fits into 2 MiB.
  if (stage2.granule_bytes != 4096 && config->host_page_level == Level::k2M) {
    config->host_page_level = Level::k1G;
  }
  // There 1 GiB is split into pages. An unmap of it page by page would wait for
  // all vCPUs ten thousands of times, longer than the round.
  if (stage2.granule_bytes != 4096 && config->host_page_level == Level::k1G) {
    stage2.tlbi_range = Stage2Config::TlbiRange::kYes;
  }
}

// As ChooseTlb.
bool ChooseCompanionBitmap(uint64_t seed) {
  std::mt19937_64 random(~seed ^ 0x646576696365);
  return random() % 2 == 0;
}

std::string_view DescribeTlb(const TlbOptions& tlb) {
  if (tlb.flushes == TlbOptions::Flushes::kWhole) return ", whole TLBs";
  return tlb.evictions == TlbOptions::Evictions::kRandom
             ? ", precise TLBs that evict"
             : ", precise TLBs";
}

std::string DescribeStage2(const Stage2Config& stage2) {
  return absl::StrFormat(
      "; granules of %d KiB, BBM level %d, split by %d KiB%s%s%s",
      stage2.granule_bytes >> 10, stage2.bbm_level,
      stage2.eager_split_chunk_bytes >> 10,
      stage2.access_flag == Stage2Config::AccessFlag::kByHardware
          ? ", hardware Access flag"
          : "",
      stage2.dirty_state == Stage2Config::DirtyState::kByHardware
          ? ", hardware dirty state"
          : "",
      stage2.tlbi_range == Stage2Config::TlbiRange::kYes ? ", TLBI by range"
                                                         : "");
}

std::string DescribeGuest(const RoundConfig& config) {
  if (config.mmu == MmuMode::kStage2) return DescribeStage2(config.stage2);
  const std::string limit =
      absl::StrFormat(", limit of %d shadow pages", config.shadow_page_limit);
  if (config.mmu == MmuMode::kTdpShadow) return limit;
  constexpr std::array<const char*, 4> kModes = {"32-bit", "PAE", "4 levels",
                                                 "5 levels"};
  const GuestPagingConfig& paging = config.guest_paging;
  const bool smp = config.smp == Smp::kYes;
  if (config.mmu == MmuMode::kNested && smp) {
    return absl::StrCat(
        "; one L1 hypervisor",
        paging.ad_bits == GuestPagingConfig::AdBits::kOn ? "" : " without A/D",
        limit);
  }
  return absl::StrFormat(
      "; the guest's tables: %s%s%s, %d processes%s%s",
      kModes[static_cast<int>(paging.mode)],
      paging.ad_bits == GuestPagingConfig::AdBits::kOn ? "" : " without A/D",
      paging.large_pages == GuestPagingConfig::LargePages::kYes
          ? " with large pages"
          : "",
      paging.processes, smp ? " on all vCPUs" : " on each vCPU", limit);
}

}  // namespace

RoundConfig RandomRound(uint64_t seed, absl::Duration duration,
                        const RoundChoices& choices) {
  std::mt19937_64 random(seed);
  RoundConfig config;
  config.seed = seed;
  config.duration = duration;
  config.format = random() % 2 == 0 ? EntryFormat::kEpt : EntryFormat::kNpt;
  config.root_levels = random() % 4 == 0 ? 5 : 4;
  constexpr std::array<Level, 4> kLevels = {Level::k2M, Level::k2M, Level::k4K,
                                            Level::k1G};
  config.host_page_level = kLevels[random() % 4];
  config.vcpus = 1 + static_cast<int>(random() % 4);
  config.ad_bits = config.format == EntryFormat::kNpt || random() % 3 != 0;
  constexpr std::array<uint32_t, 6> kRings = {0, 0, 0, 256, 1024, 4096};
  config.dirty_ring_entries = kRings[random() % kRings.size()];
  config.nx_huge_pages = random() % 3 == 0;
  if (random() % 8 == 0) config.mmio_caching = VmConfig::MmioCaching::kNo;
  if (random() % 2 == 0) config.slot_zap = VmConfig::SlotZap::kSlot;
  constexpr std::array<MmuMode, 6> kMmus = {
      MmuMode::kTdp,    MmuMode::kShadow, MmuMode::kNested,
      MmuMode::kStage2, MmuMode::kTdp,    MmuMode::kTdpShadow};
  config.mmu = choices.mmu.value_or(kMmus[seed % kMmus.size()]);
  if (config.mmu == MmuMode::kStage2) {
    ChooseStage2(seed, choices, &config);
  } else if (config.mmu != MmuMode::kTdp) {
    ChooseGuestPaging(random, choices.smp, &config);
  }
  if (config.format == EntryFormat::kNpt) config.ad_bits = true;
  config.pml =
      config.mmu != MmuMode::kTdpShadow && config.mmu != MmuMode::kStage2 &&
      config.format == EntryFormat::kEpt && config.ad_bits && random() % 2 == 0;
  // The ring must have room for all of a CPU's log.
  if (config.pml && config.dirty_ring_entries == 256) {
    config.dirty_ring_entries = 1024;
  }
  config.tlb = ChooseTlb(seed);
  config.companion_bitmap = ChooseCompanionBitmap(seed);
  return config;
}

std::string Describe(const RoundConfig& config) {
  const int level = static_cast<int>(config.host_page_level);
  return absl::StrFormat(
      "seed %d: %s, %s%s%s, %d levels, host pages of %s, %d vCPUs, "
      "%s%s%s%s%s%s",
      config.seed, testing::ToString(config.mmu),
      config.format == EntryFormat::kEpt ? "EPT" : "NPT",
      config.ad_bits ? "" : " without A/D bits", config.pml ? " and PML" : "",
      config.root_levels,
      level == 1   ? "4K"
      : level == 2 ? "2M"
                   : "1G",
      config.vcpus,
      config.dirty_ring_entries == 0
          ? "bitmaps"
          : absl::StrCat("rings of ", config.dirty_ring_entries,
                         config.has_device() ? " and companion bitmaps" : ""),
      config.mmio_caching == VmConfig::MmioCaching::kYes ? ""
                                                         : ", no MMIO SPTEs",
      config.nx_huge_pages ? ", NX huge pages" : "",
      config.slot_zap == VmConfig::SlotZap::kAll ? "" : ", slots zapped alone",
      DescribeTlb(config.tlb),
      config.mmu == MmuMode::kTdp ? "" : DescribeGuest(config));
}

}  // namespace mmu::stress
