// Ages of memory as people read them.

#ifndef CLIENT_WORKING_SET_AGE_TEXT_H_
#define CLIENT_WORKING_SET_AGE_TEXT_H_

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace mmud::client {

// At most two units, rounded down: "0s", "250ms", "12s", "1m30s", "2h05m",
// "3d04h". "forever" if it is infinite.
std::string FormatAge(absl::Duration age);

// "10s - 1m"; "over 10s" if `max` is infinite; one age if both are equal.
std::string FormatAgeRange(absl::Duration min, absl::Duration max);

// Round numbers from 10 ms to 30 days, ascending, for the bounds of classes of
// age and the marks of an axis.
const std::vector<absl::Duration>& RoundAges();

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_AGE_TEXT_H_
