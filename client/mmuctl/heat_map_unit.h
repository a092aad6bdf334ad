// The unit of a heat map.

#ifndef CLIENT_MMUCTL_HEAT_MAP_UNIT_H_
#define CLIENT_MMUCTL_HEAT_MAP_UNIT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {

// The smallest unit with which the heat map of `memslots` has at most 4,194,304
// units, as GetWorkingSet allows; 1G if there is none.
v1::PageSize SmallestUnit(const std::vector<GpaRange>& memslots);

// The same for the present memslots of a VM.
absl::StatusOr<v1::PageSize> SmallestUnitOf(Client& client,
                                            const std::string& vm);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_HEAT_MAP_UNIT_H_
