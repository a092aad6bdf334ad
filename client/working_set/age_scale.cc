#include "client/working_set/age_scale.h"

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/working_set/age_text.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

// How many of `bounds` are not above `age`.
size_t BoundsUpTo(const std::vector<absl::Duration>& bounds,
                  absl::Duration age) {
  return std::upper_bound(bounds.begin(), bounds.end(), age) - bounds.begin();
}

}  // namespace

AgeScale::AgeScale(const WorkingSetPicture& picture) {
  std::set<size_t> classes;
  for (const AgeBin& bin : picture.bins) {
    classes.insert(BoundsUpTo(RoundAges(), bin.min_age));
  }
  for (const HeatSlot& slot : picture.heat) {
    for (const HeatCell& cell : slot.cells) {
      if (cell.kind == HeatCell::Kind::kAged) {
        classes.insert(BoundsUpTo(RoundAges(), cell.age));
      }
    }
  }
  // Each class but the youngest begins at a bound.
  std::vector<absl::Duration> bounds;
  for (const size_t above : classes) {
    if (above != *classes.begin()) bounds.push_back(RoundAges()[above - 1]);
  }
  constexpr size_t kMostBounds = kMaxSteps - 1;
  const size_t count = std::min(bounds.size(), kMostBounds);
  for (size_t i = 0; i < count; ++i) {
    // The first and the last always stay.
    bounds_.push_back(
        bounds[count < 2 ? i : i * (bounds.size() - 1) / (count - 1)]);
  }
}

int AgeScale::StepOf(absl::Duration age) const {
  return static_cast<int>(BoundsUpTo(bounds_, age));
}

std::string AgeScale::LabelOf(int step) const {
  if (bounds_.empty()) return "any age";
  if (step == 0) return absl::StrCat("under ", FormatAge(bounds_.front()));
  if (step == steps() - 1) {
    return absl::StrCat(FormatAge(bounds_.back()), " and more");
  }
  return absl::StrCat(FormatAge(bounds_[step - 1]), " to ",
                      FormatAge(bounds_[step]));
}

}  // namespace mmud::client
