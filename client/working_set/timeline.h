// The timeline of a working set, from one or several of the API's answers.

#ifndef CLIENT_WORKING_SET_TIMELINE_H_
#define CLIENT_WORKING_SET_TIMELINE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/working_set/picture.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

// Thread-compatible.
class Timeline {
 public:
  // The oldest points are dropped.
  static constexpr size_t kMaxPoints = 1000;

  // Adds the generations of an answer that came at `now` and that have ended.
  // The sizes of the windows are known for the newest one of each answer only.
  // If another VM has the name now, or the working set was forgotten, the
  // earlier generations are dropped. The answers must have the same windows.
  void Observe(const v1::WorkingSet& working_set, mmu::MonotonicTime now);

  // Oldest first.
  std::vector<TimelinePoint> Points(mmu::MonotonicTime now) const;

 private:
  struct Point {
    mmu::MonotonicTime end;
    int64_t young_bytes = 0;
    std::vector<std::optional<int64_t>> windows;
    bool windows_known = false;
  };

  std::string vm_uid_;
  std::map<int64_t, Point> points_;  // by Generation.sequence
};

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_TIMELINE_H_
