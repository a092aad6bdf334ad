// The classes of age that a view marks with one colour or character each.

#ifndef CLIENT_WORKING_SET_AGE_SCALE_H_
#define CLIENT_WORKING_SET_AGE_SCALE_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/working_set/picture.h"

namespace mmud::client {

// A value.
class AgeScale {
 public:
  static constexpr int kMaxSteps = 8;

  // Steps for the ages of the picture's cells and the least ages of its bins.
  // Their bounds are round, and only where ages lie on both sides.
  explicit AgeScale(const WorkingSetPicture& picture);

  // 1 to kMaxSteps.
  int steps() const { return static_cast<int>(bounds_.size()) + 1; }

  // 0, the youngest, to steps() - 1.
  int StepOf(absl::Duration age) const;

  // The least age of a step.
  absl::Duration LeastOf(int step) const {
    return step == 0 ? absl::ZeroDuration() : bounds_[step - 1];
  }

  // "under 10s", "10s to 1m", "1h and more"; "any age" if there is one step.
  std::string LabelOf(int step) const;

 private:
  // Ascending. Step i has the ages from bound i - 1 up to, but without, bound
  // i.
  std::vector<absl::Duration> bounds_;
};

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_AGE_SCALE_H_
