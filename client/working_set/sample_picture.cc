#include "client/working_set/sample_picture.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/working_set/cells.h"
#include "client/working_set/picture.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

constexpr int64_t kMiB = 1024 * 1024;
constexpr int64_t kGiB = 1024 * kMiB;
constexpr int64_t kChunkBytes = 2 * kMiB;
constexpr int64_t kLowBytes = 3 * kGiB;
constexpr int64_t kHighGpa = 4 * kGiB;
constexpr int64_t kHighBytes = 61 * kGiB;

constexpr std::array<int, 9> kAgesInSeconds = {0,    15,   60,   240,  600,
                                               1500, 3600, 9000, 20000};
constexpr int kGenerations = static_cast<int>(kAgesInSeconds.size()) - 1;
constexpr int kNever = kGenerations;
constexpr int kUnmapped = kGenerations + 1;

// A number that looks random, 0 to `limit` - 1.
int64_t Scatter(int64_t number, int64_t limit) {
  uint64_t bits = static_cast<uint64_t>(number) * 0x9e3779b97f4a7c15u;
  bits ^= bits >> 29;
  bits *= 0xd6e8feb86659fd93u;
  bits ^= bits >> 32;
  return static_cast<int64_t>(bits % static_cast<uint64_t>(limit));
}

// The generation, counted from the youngest, of a chunk in the high slot.
int HighGeneration(int64_t chunk) {
  const int64_t all = kHighBytes / kChunkBytes;
  const int64_t place = chunk * 1000 / all;
  const auto noise = static_cast<int>(Scatter(chunk, 3));
  if (place < 90) return noise / 2;  // a heap in use
  if (place < 300) {
    // A file that is scanned again and again: the younger, the later.
    return std::min(7, static_cast<int>((300 - place) / 27) + noise / 2);
  }
  if (place < 520) {
    // Many small objects, of which some are in use.
    const int64_t block = Scatter(chunk / 24, 10);
    return block < 3 ? static_cast<int>(block) + noise
                     : std::min(7, 3 + static_cast<int>(block) / 2 + noise / 2);
  }
  if (place < 640) return 5 + noise;
  if (place < 700) return kUnmapped;  // given back to the host
  if (place < 880) return Scatter(chunk / 40, 5) == 0 ? 6 + noise / 2 : kNever;
  return Scatter(chunk / 512, 3) == 0 ? kNever : kUnmapped;
}

int LowGeneration(int64_t chunk) {
  const int64_t place = chunk * 1000 / (kLowBytes / kChunkBytes);
  const auto noise = static_cast<int>(Scatter(chunk + 77, 4));
  if (place < 60) return 0;
  if (place < 400) return noise == 0 ? 0 : 2 + noise;
  if (place < 900) return 4 + noise;
  return kNever;
}

// A wave between 0 and `height`, in thousandths of its period.
int64_t Wave(int64_t thousandths, int64_t height) {
  const int64_t part = thousandths % 1000;
  const int64_t up = part < 500 ? part : 1000 - part;
  // Rounded at its ends.
  return height * up * up * (1500 - 2 * up) / 125'000'000;
}

// `bytes`, less up to the thousandths that are missing to 1000. `back` points
// before the last it is there again after `period` points.
int64_t Swing(int64_t bytes, int64_t least, int64_t back, int64_t period) {
  const int64_t noise = (Scatter(back + period, 60) - 30) * back / 240;
  return bytes / 1000 *
         (least + Wave(500 + back * 1000 / period, 1000 - least) + noise);
}

void AddTimeline(WorkingSetPicture* picture) {
  constexpr int kPoints = 121;
  constexpr std::array<int64_t, 4> kLeast = {450, 720, 720, 800};
  constexpr std::array<int64_t, 4> kPeriod = {45, 70, 130, 240};
  for (int back = kPoints - 1; back >= 0; --back) {
    TimelinePoint point;
    point.ago = absl::Minutes(back);
    point.young_bytes =
        Swing(picture->bins.front().size_bytes, 400, back, kPeriod[0]);
    for (size_t i = 0; i < picture->windows.size(); ++i) {
      point.working_set_bytes.push_back(
          Swing(picture->windows[i].size_bytes, kLeast[i], back, kPeriod[i]));
    }
    // The longest window was not known at first.
    if (back > 100) point.working_set_bytes.back() = std::nullopt;
    picture->timeline.push_back(point);
  }
}

}  // namespace

WorkingSetPicture SamplePicture(const std::string& vm) {
  WorkingSetPicture picture;
  picture.vm = vm;
  picture.time = WallTime::FromUnixNanos(1795249477'000000000);
  picture.staleness = absl::Seconds(4);
  picture.coverage = {"The shadow MMU was skipped: its pages have no age."};
  for (int i = 0; i < kGenerations; ++i) {
    picture.bins.push_back(
        {.generation = 418 - i,
         .min_age = absl::Seconds(kAgesInSeconds[i]),
         .max_age = i + 1 < kGenerations ? absl::Seconds(kAgesInSeconds[i + 1])
                                         : absl::InfiniteDuration()});
  }
  std::vector<AgedExtent> extents;
  const auto add = [&](int64_t gpa, int generation) {
    if (generation >= kUnmapped) return;
    if (generation == kNever) {
      picture.never_young_bytes += kChunkBytes;
      extents.push_back({{gpa, kChunkBytes}, std::nullopt});
      return;
    }
    AgeBin& bin = picture.bins[generation];
    bin.size_bytes += kChunkBytes;
    bin.page_count += kChunkBytes / kPageBytes;
    extents.push_back({{gpa, kChunkBytes}, bin.min_age});
  };
  for (int64_t chunk = 0; chunk < kLowBytes / kChunkBytes; ++chunk) {
    add(chunk * kChunkBytes, LowGeneration(chunk));
  }
  for (int64_t chunk = 0; chunk < kHighBytes / kChunkBytes; ++chunk) {
    add(kHighGpa + chunk * kChunkBytes, HighGeneration(chunk));
  }
  for (const absl::Duration window :
       {absl::Minutes(1), absl::Minutes(10), absl::Hours(1), absl::Hours(6)}) {
    WindowSize size = {.window = window, .complete = window < absl::Hours(6)};
    for (const AgeBin& bin : picture.bins) {
      if (bin.min_age < window) size.size_bytes += bin.size_bytes;
    }
    picture.windows.push_back(size);
  }
  picture.heat = MakeHeat(extents,
                          {{.slot = 0, .range = {0, kLowBytes}},
                           {.slot = 1, .range = {kHighGpa, kHighBytes}}},
                          32768);
  AddTimeline(&picture);
  return picture;
}

}  // namespace mmud::client
