#include "mmu_core/testing/mmu_mode_names.h"

namespace mmu::testing {

const char* ToString(MmuMode mode) {
  switch (mode) {
    case MmuMode::kTdp:
      return "tdp";
    case MmuMode::kTdpShadow:
      return "tdp_shadow";
    case MmuMode::kShadow:
      return "shadow";
    case MmuMode::kNested:
      return "nested";
    case MmuMode::kStage2:
      return "stage2";
  }
  return "?";
}

absl::optional<MmuMode> ParseMmuMode(const std::string& name) {
  for (const MmuMode mode :
       {MmuMode::kTdp, MmuMode::kTdpShadow, MmuMode::kShadow, MmuMode::kNested,
        MmuMode::kStage2}) {
    if (name == ToString(mode)) return mode;
  }
  return absl::nullopt;
}

}  // namespace mmu::testing
