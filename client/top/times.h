// Times of day, which need less space than dates.

#ifndef CLIENT_TOP_TIMES_H_
#define CLIENT_TOP_TIMES_H_

#include <string>

#include "server/base/wall_time.h"

namespace mmud::client {

// "08:24:37", in UTC as all times of mmuctl.
std::string TimeOfDay(WallTime time);

}  // namespace mmud::client

#endif  // CLIENT_TOP_TIMES_H_
