#include "client/working_set/from_api.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/working_set/age_bins.h"
#include "client/working_set/cells.h"
#include "client/working_set/newest_ended.h"
#include "client/working_set/picture.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

// A bar for each generation is drawn up to this number of generations.
constexpr size_t kMaxBars = 16;
// HeatMap.ages: memory that was never found young.
constexpr uint8_t kNeverYoung = 128;

// 0 if the unit is unknown.
int64_t UnitBytes(v1::PageSize unit) {
  switch (unit) {
    case v1::PAGE_SIZE_4K:
      return kPageBytes;
    case v1::PAGE_SIZE_2M:
      return int64_t{1} << 21;
    case v1::PAGE_SIZE_1G:
      return int64_t{1} << 30;
    default:
      return 0;
  }
}

std::string MmuWord(v1::PageTableKind kind) {
  const std::string name = v1::PageTableKind_Name(kind);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "PAGE_TABLE_KIND_"));
}

std::vector<AgeBin> BinsOf(const v1::WorkingSet& working_set) {
  std::vector<AgeBin> bins;
  for (const v1::AgeBin& bin : working_set.bins()) {
    bins.push_back({.generation = bin.generation(),
                    .min_age = FromProto(bin.min_age()),
                    .max_age = bin.has_max_age() ? FromProto(bin.max_age())
                                                 : absl::InfiniteDuration(),
                    .page_count = bin.page_count(),
                    .size_bytes = bin.size_bytes()});
  }
  return bins;
}

// The cell of a unit, or of several if `age` is the least of theirs.
HeatCell CellOf(uint8_t age, const std::vector<AgeBin>& bins) {
  if (age >= kNeverYoung || bins.empty()) {
    return {.kind = HeatCell::Kind::kNeverYoung, .age = {}};
  }
  // 127 stands for all greater numbers, and the last bin for all generations
  // before it.
  const size_t bin = std::min(static_cast<size_t>(age), bins.size() - 1);
  return {.kind = HeatCell::Kind::kAged, .age = bins[bin].min_age};
}

// Gives each cell of the slot the least age of its units.
void Fill(const v1::HeatMap& map, const std::vector<AgeBin>& bins,
          HeatSlot* slot) {
  const int64_t unit = UnitBytes(map.unit());
  const absl::string_view ages = map.ages();
  const int64_t first_unit = slot->gpa_bytes / unit;
  int64_t begin = slot->gpa_bytes;
  const int64_t slot_end = slot->gpa_bytes + slot->size_bytes;
  for (HeatCell& cell : slot->cells) {
    const int64_t end = std::min(begin + slot->cell_bytes, slot_end);
    const auto first = static_cast<size_t>(begin / unit - first_unit);
    const auto last = static_cast<size_t>((end - 1) / unit - first_unit);
    begin = end;
    if (last >= ages.size()) continue;
    uint8_t least = kNeverYoung;
    for (const char age : ages.substr(first, last - first + 1)) {
      least = std::min(least, static_cast<uint8_t>(age));
    }
    cell = CellOf(least, bins);
  }
}

std::vector<HeatSlot> HeatOf(const v1::WorkingSet& working_set,
                             const std::vector<AgeBin>& bins,
                             int64_t wanted_cells) {
  std::vector<HeatSlotRange> ranges;
  int64_t units = 0;
  for (const v1::HeatMap& map : working_set.heat_maps()) {
    if (UnitBytes(map.unit()) == 0) continue;
    ranges.push_back(
        {map.slot(), {map.extent().gpa_bytes(), map.extent().size_bytes()}});
    units += static_cast<int64_t>(map.ages().size());
  }
  std::vector<HeatSlot> heat =
      MakeHeat({}, ranges, std::min(wanted_cells, units));
  for (HeatSlot& slot : heat) {
    for (const v1::HeatMap& map : working_set.heat_maps()) {
      if (UnitBytes(map.unit()) != 0 && map.slot() == slot.slot &&
          map.extent().gpa_bytes() == slot.gpa_bytes) {
        Fill(map, bins, &slot);
        break;
      }
    }
  }
  return heat;
}

bool HasNeverYoung(const std::vector<HeatSlot>& heat) {
  return std::any_of(heat.begin(), heat.end(), [](const HeatSlot& slot) {
    return std::any_of(slot.cells.begin(), slot.cells.end(),
                       [](const HeatCell& cell) {
                         return cell.kind == HeatCell::Kind::kNeverYoung;
                       });
  });
}

std::vector<std::string> SentencesFor(const v1::WorkingSet& working_set,
                                      const std::vector<HeatSlot>& heat) {
  std::vector<std::string> sentences;
  const v1::Generation* ended = NewestEnded(working_set);
  if (ended == nullptr) {
    sentences.push_back(
        "no generation has ended yet: the sizes are those found so far");
  } else {
    sentences = CoverageOf(*ended);
    const v1::Generation& newest = working_set.generations(0);
    if (!newest.has_since_end()) {
      sentences.push_back(
          absl::StrCat("generation ", newest.sequence(),
                       " is being made: what it found young so far is in it"));
    }
  }
  if (HasNeverYoung(heat)) {
    sentences.push_back(
        "in the map of guest memory, unmapped memory is never young too");
  }
  return sentences;
}

}  // namespace

std::vector<std::string> CoverageOf(const v1::Generation& generation) {
  std::vector<std::string> sentences;
  for (const v1::AgedMmu& mmu : generation.mmus()) {
    if (mmu.coverage() != v1::AGING_COVERAGE_SKIPPED) continue;
    sentences.push_back(
        absl::StrCat(MmuWord(mmu.kind()),
                     " was skipped: accesses through it are missing "
                     "(--may-lock examines it too)"));
  }
  if (generation.scope() == v1::GENERATION_SCOPE_LOOK_AROUND) {
    sentences.push_back(
        "one page of each 64 was examined, and its neighbours where it was "
        "young: other pages are found young later");
  }
  if (generation.incomplete()) {
    sentences.push_back(
        "the scan ended early: pages that it did not reach look old");
  }
  if (generation.others_cleared()) {
    sentences.push_back(
        "others cleared Accessed bits: what they found young may look old");
  }
  return sentences;
}

WorkingSetPicture PictureOf(const v1::WorkingSet& working_set, WallTime time,
                            int64_t wanted_cells) {
  const std::vector<AgeBin> bins = BinsOf(working_set);
  WorkingSetPicture picture;
  picture.vm = working_set.vm();
  picture.time = time;
  picture.bins = FoldBins(bins, kMaxBars);
  picture.never_young_bytes = working_set.never_young_page_count() * kPageBytes;
  for (const v1::WorkingSetSize& window : working_set.windows()) {
    picture.windows.push_back({.window = FromProto(window.window()),
                               .size_bytes = window.size_bytes(),
                               .complete = window.complete()});
  }
  picture.staleness = working_set.has_staleness()
                          ? FromProto(working_set.staleness())
                          : absl::InfiniteDuration();
  picture.heat = HeatOf(working_set, bins, wanted_cells);
  picture.coverage = SentencesFor(working_set, picture.heat);
  return picture;
}

}  // namespace mmud::client
