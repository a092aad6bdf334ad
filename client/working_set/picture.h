// What is known of a VM's working set at one time, as the views show it.

#ifndef CLIENT_WORKING_SET_PICTURE_H_
#define CLIENT_WORKING_SET_PICTURE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/wall_time.h"

namespace mmud::client {

// The pages of one generation, or of several in a row. They were last found
// young between `min_age` and `max_age` before the observation; an infinite
// `max_age` means that they may be of any age above `min_age`. A value.
struct AgeBin {
  int64_t generation = 0;
  absl::Duration min_age = absl::ZeroDuration();
  absl::Duration max_age = absl::ZeroDuration();
  int64_t page_count = 0;
  int64_t size_bytes = 0;
  // If the bin stands for several generations: the oldest of them.
  std::optional<int64_t> oldest_generation = {};
};

// The memory that was found young within the last `window`. A value.
struct WindowSize {
  absl::Duration window;
  int64_t size_bytes = 0;
  // False if tracking is younger than the window: memory that was accessed
  // before the window counts too.
  bool complete = true;
};

// A stretch of guest memory in the heat map. A value.
struct HeatCell {
  enum class Kind {
    kAbsent,      // no page is mapped, or none is tracked
    kNeverYoung,  // pages are mapped, and none was found young
    kAged,        // a page was found young
  };

  Kind kind = Kind::kAbsent;
  // For kAged: how long before the observation its youngest page was last found
  // young.
  absl::Duration age;

  friend bool operator==(const HeatCell&, const HeatCell&) = default;
};

// One memslot of the heat map. A value.
struct HeatSlot {
  int slot = 0;
  int64_t gpa_bytes = 0;
  int64_t size_bytes = 0;
  // The memory of one cell; the last cell may have less. At least 1.
  int64_t cell_bytes = 0;
  // From `gpa_bytes` upwards, and as many as `size_bytes` needs.
  std::vector<HeatCell> cells = {};
};

// An earlier state. A value.
struct TimelinePoint {
  // How long before the observation. The wall clock may be set in between, so
  // this is no difference of two of its times.
  absl::Duration ago;
  int64_t young_bytes = 0;
  // One size for each of the picture's windows, in their order; without a value
  // where it was not known.
  std::vector<std::optional<int64_t>> working_set_bytes;
};

// A value.
struct WorkingSetPicture {
  std::string vm;
  WallTime time = WallTime::FromUnixNanos(0);
  // Youngest first.
  std::vector<AgeBin> bins;
  // Mapped memory that was not found young since tracking began.
  int64_t never_young_bytes = 0;
  // Ascending.
  std::vector<WindowSize> windows;
  // How long before the observation the last ageing pass ended.
  absl::Duration staleness;
  // Sentences about what was not examined, for example "shadow skipped".
  std::vector<std::string> coverage;
  // Ascending by address.
  std::vector<HeatSlot> heat;
  // Oldest first.
  std::vector<TimelinePoint> timeline;
};

// The memory that has an age or was never found young.
int64_t TrackedBytes(const WorkingSetPicture& picture);

// The memory of all slots of the heat map.
int64_t GuestBytes(const WorkingSetPicture& picture);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_PICTURE_H_
