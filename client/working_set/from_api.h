// A picture of a working set from the API's answer.

#ifndef CLIENT_WORKING_SET_FROM_API_H_
#define CLIENT_WORKING_SET_FROM_API_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/working_set/picture.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {

// The picture of `working_set` as it was observed at `time`, without a
// timeline. A unit of the heat map has the least age of its generation's bin. A
// cell has the age of its youngest unit, and is no smaller than a unit unless
// its slot is; see MakeHeat for `wanted_cells`. If there are many bins, they
// are folded. The staleness is infinite if no generation has ended.
WorkingSetPicture PictureOf(const v1::WorkingSet& working_set, WallTime time,
                            int64_t wanted_cells);

// Sentences about what the generation did not find.
std::vector<std::string> CoverageOf(const v1::Generation& generation);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_FROM_API_H_
